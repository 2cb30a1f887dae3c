"""Keeping leases alive while their owner lives: those of claims, and those of paid calls."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from sqlalchemy import Connection, Engine

from imgpipe_orchestration.logs import logger
from imgpipe_orchestration.storage import claims_sql as sql
from imgpipe_orchestration.storage.rows import translated

log = logger(__name__)


@contextmanager
def kept_alive(
    renewed: Callable[[], object], lease_seconds: float, *, name: str, join_seconds: float | None = None
) -> Iterator[None]:
    """Call `renewed` three times per lease while the block runs, from a thread of its own.

    Whatever it raises is logged and it is called again soon: a thread that stopped would cost every lease.

    Args:
        name: of the thread, and of the lease in the log.
        join_seconds: how long its last call is waited for at the end; None: until it returns.
    """
    stop = threading.Event()

    def beats() -> None:
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
        thread.join(join_seconds)


@contextmanager
def beating(engine: Engine, owner: str, lease_seconds: float) -> Iterator[None]:
    """Keep the claims of `owner` while the block runs.

    Raises:
        BackendUnavailable: the database is away at the start. Later absences are waited out.
    """
    heart = _Heart(engine, owner, lease_seconds)
    heart.beat()
    try:
        with kept_alive(heart.beat, lease_seconds, name=f"heartbeat-{owner[:8]}"):
            yield
    finally:
        heart.close()


def renew(connection: Connection, owner: str, lease_seconds: float) -> int:
    """Renew every lease of `owner`, except where a step is writing at this moment; returns how many."""
    return connection.execute(sql.HEARTBEAT, {"owner": owner, "lease": lease_seconds}).rowcount


class _Heart:
    """The connection that renews leases: its own for as long as it beats, so that a pool emptied by busy steps cannot
    cost them their leases."""

    def __init__(self, engine: Engine, owner: str, lease_seconds: float) -> None:
        self._engine = engine
        self._owner = owner
        self._lease_seconds = lease_seconds
        self._connection: Connection | None = None

    def beat(self) -> None:
        with translated():
            try:
                self._connection = self._connection or self._engine.connect()
                with self._connection.begin():
                    renew(self._connection, self._owner, self._lease_seconds)
            except BaseException:
                self.close()
                raise

    def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()
