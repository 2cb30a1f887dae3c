"""Renews the leases of claims and paid calls while their owner lives."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from sqlalchemy import Connection, Engine

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
    thread = threading.Thread(target=_beats, args=(stop.wait, renewed, lease_seconds), name=name, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


class Keeper:
    """Keeps the leases of many short jobs alive from one thread, which lives until no lease is held. Thread-safe.

    A thread for each job would take 2 ms to start and end, for jobs of some milliseconds.

    Args:
        renewed: renews the leases it is given; called three times per lease while any is held. Nobody waits for it.
        name: of the thread, and of the leases in the log.
    """

    def __init__(self, renewed: Callable[[frozenset[str]], object], lease_seconds: float, *, name: str) -> None:
        self._renewed = renewed
        self._lease_seconds = lease_seconds
        self._name = name
        self._held: set[str] = set()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    @contextmanager
    def holding(self, lease: str) -> Iterator[None]:
        """Have `lease` renewed while the block runs."""
        with self._lock:
            self._held.add(lease)
            if self._thread is None or not self._thread.is_alive():  # after a fork the parent's thread is not alive
                work = (self._done_after, self._renew, self._lease_seconds)
                self._thread = threading.Thread(target=_beats, args=work, name=self._name, daemon=True)
                self._thread.start()
        try:
            yield
        finally:
            with self._lock:
                self._held.discard(lease)

    def _renew(self) -> None:
        with self._lock:
            held = frozenset(self._held)
        if held:
            self._renewed(held)

    def _done_after(self, seconds: float) -> bool:
        time.sleep(seconds)
        with self._lock:
            if not self._held:
                self._thread = None
            return not self._held


def _beats(done_after: Callable[[float], bool], renewed: Callable[[], object], lease_seconds: float) -> None:
    """Call `renewed` until done; errors are logged. If this thread ended, all leases would be lost."""
    pause = lease_seconds / 3
    while not done_after(pause):
        try:
            renewed()
            pause = lease_seconds / 3
        except Exception as error:
            log.warning("lease not renewed", extra={"lease": threading.current_thread().name}, exc_info=error)
            pause = min(1.0, lease_seconds / 10)


@contextmanager
def beating(engine: Engine, owner: str, lease_seconds: float) -> Iterator[None]:
    """Keep the leases of the claims of `owner` alive while the block runs.

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


class _Heart:
    """Renews leases on a connection of its own, so that they do not end when busy steps use up the pool."""

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
                    self._connection.execute(sql.HEARTBEAT, {"owner": self._owner, "lease": self._lease_seconds})
            except BaseException:
                self.close()
                raise

    def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()
