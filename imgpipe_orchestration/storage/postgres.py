"""PostgreSQL connections that give up on a server that no longer answers."""

import math
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar, cast

import psycopg
from sqlalchemy import Connection, text

SILENT_SECONDS = 70.0
"""How long a server may take to answer. It is longer than `statement_timeout`, at which a working server ends a
statement. A server whose processes are stopped or whose disk hangs still acknowledges every packet, so that TCP never
notices."""

Answer = TypeVar("Answer")


class PostgresConnection(psycopg.Connection[Any]):
    """psycopg's connection, closed when a statement gets no answer for `silent_seconds`."""

    silent_seconds = SILENT_SECONDS

    def wait(self, gen: Generator[Any, Any, Answer], *args: Any, **kwargs: Any) -> Answer:
        return super().wait(self._heard(gen), *args, **kwargs)

    def _heard(self, steps: Generator[Any, Any, Answer]) -> Generator[Any, Any, Answer]:
        """psycopg's generator for an answer; raises if the socket was not ready for too long."""
        heard = time.monotonic()
        try:
            needed = next(steps)
            while True:
                ready = yield needed  # 0 ten times a second while nothing is ready
                now = time.monotonic()
                if ready:
                    heard = now
                elif now - heard > self.silent_seconds:
                    self.close()
                    raise psycopg.OperationalError(f"the server has not answered for {self.silent_seconds:g} s")
                needed = steps.send(ready)
        except StopIteration as end:
            answer: Answer = end.value
            return answer


@contextmanager
def as_long_as_it_takes(connection: Connection) -> Iterator[None]:
    """Lift the server's and our own time limit for the statements of a transaction."""
    connection.execute(text("set local statement_timeout = 0"))
    driver = cast("PostgresConnection", connection.connection.driver_connection)
    driver.silent_seconds = math.inf
    try:
        yield
    finally:
        driver.silent_seconds = SILENT_SECONDS
