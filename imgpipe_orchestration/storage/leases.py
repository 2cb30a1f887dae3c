"""Renews the leases of claims and paid calls while their owner lives."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from sqlalchemy import Engine

from imgpipe_orchestration.storage import claims_sql as sql
from imgpipe_orchestration.storage.rows import translated
from imgpipe_orchestration.telemetry.logs import logger

log = logger(__name__)


@contextmanager
def kept_alive(renewed: Callable[[], object], lease_seconds: float, *, name: str) -> Iterator[None]:
    """Call `renewed` three times per lease while the block runs, from a thread of its own, which ends with the block.

    Args:
        name: of the thread, and of the lease in the log.
    """
    stop = threading.Event()

    def beats() -> None:
        """Errors are logged: if this thread ended, the lease would be lost."""
        pause = lease_seconds / 3
        while not stop.wait(pause):
            try:
                renewed()
                pause = lease_seconds / 3
            except Exception as error:
                log.warning("lease not renewed", extra={"lease": name}, exc_info=error)
                pause = min(1.0, lease_seconds / 10)

    thread = threading.Thread(target=beats, name=name, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


@contextmanager
def beating(engine: Engine, owner: str, lease_seconds: float) -> Iterator[None]:
    """Keep the leases of the claims of `owner` alive while the block runs, on a connection of its own, so that they do
    not end when busy steps use up the pool.

    Raises:
        BackendUnavailable: the database is away at the start. Later absences are waited out.
    """
    with translated():
        connection = engine.connect()

    def beat() -> None:
        with translated():
            try:
                with connection.begin():
                    connection.execute(sql.HEARTBEAT, {"owner": owner, "lease": lease_seconds})
            except BaseException:
                connection.invalidate()  # the next beat connects anew
                raise

    try:
        beat()
        with kept_alive(beat, lease_seconds, name=f"heartbeat-{owner[:8]}"):
            yield
    finally:
        connection.close()
