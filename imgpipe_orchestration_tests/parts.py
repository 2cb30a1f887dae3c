"""Parts of a stack as tests and benches start them: one at a time, and PostgreSQL with databases of their own."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import psycopg
from psycopg import sql

from imgpipe_orchestration.devstack.postgres import Postgres, url_of
from imgpipe_orchestration.devstack.process import Part

Some = TypeVar("Some", bound=Part)


@contextmanager
def running(part: Some) -> Iterator[Some]:
    """The part, started and answering; it is stopped at the end."""
    part.start()
    try:
        part.wait_until_ready()
        yield part
    finally:
        stop(part)


def stop(part: Part) -> None:
    """End it and all it started: gracefully, then by force."""
    part.ask_to_stop()
    part.await_stop()


class Program(Part):
    """Any program that listens on its port."""

    name = "program"
    stop_seconds = 60

    def __init__(self, folder: Path, port: int, *words: str | Path, **environ: str) -> None:
        super().__init__(folder, port, environ={**os.environ, **environ})
        self._words = [str(word) for word in words]

    def command(self) -> list[str]:
        return self._words


class QuickPostgres(Postgres):
    """A PostgreSQL that waits for no disk, and so may lose rows when the machine fails."""

    def command(self) -> list[str]:
        options = ("fsync=off", "synchronous_commit=off", "full_page_writes=off")
        return [*super().command(), *(word for option in options for word in ("-c", option))]


def ensure_database(server: Postgres, name: str, *, template: str = "template1") -> str:
    """Create the database unless it exists; returns its URL."""
    # By copying files: writing small databases through the log takes twice as long.
    statement = sql.SQL("CREATE DATABASE {} TEMPLATE {} STRATEGY file_copy")
    with psycopg.connect(server.url, autocommit=True) as connection:
        if not connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [name]).fetchone():
            connection.execute(statement.format(sql.Identifier(name), sql.Identifier(template)))
    return url_of(server.port, name)
