"""What the distribution's packages bring: Redis, RabbitMQ and MariaDB; and a Celery worker as on a machine of its own.

A server that is not installed costs the test that starts it.
"""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import psutil
import pymysql
from kombu import Connection
from kombu.exceptions import OperationalError
from redis import Redis
from redis.exceptions import RedisError

from imgpipe_orchestration.dagster_side.run_tags import QUEUES
from imgpipe_orchestration.devstack.ports import LOOPBACK, free_port
from imgpipe_orchestration.devstack.process import Part
from imgpipe_orchestration_tests.lacking import lacking

_PAGE = (Path(__file__).parents[1] / "docs" / "media.md").read_text()
PENDING_IMAGES = _PAGE[_PAGE.index("CREATE TABLE pending_images") : _PAGE.index(";\n", _PAGE.index("CREATE TABLE"))]
"""The documents' own DDL, to the letter."""


def _found(command: str, path: str = "/usr/bin:/usr/sbin:/usr/lib/rabbitmq/bin") -> str:
    """Where a server's program is. Of RabbitMQ not Debian's in /usr/sbin, which changes to a folder and a user of its
    own."""
    found = shutil.which(command, path=path)
    if found is None:
        lacking(command, "make test-servers")
    return found


class RedisServer(Part):
    """`redis-server` that keeps nothing: a broker's queues are worth no more than Dagster's own record of its runs."""

    name = "redis"

    @property
    def url(self) -> str:
        return f"redis://{LOOPBACK}:{self.port}/0"

    def command(self) -> list[str]:
        words = [_found("redis-server"), "--bind", LOOPBACK, "--port", str(self.port), "--dir", str(self.folder)]
        return [*words, "--save", "", "--appendonly", "no"]

    def answers(self) -> bool:
        with Redis(host=LOOPBACK, port=self.port, socket_connect_timeout=2) as client:
            try:
                return bool(client.ping())
            except RedisError:
                return False


class RabbitMQ(Part):
    """`rabbitmq-server` with a folder of its own, and Erlang's port mapper with it: by itself that would outlive it."""

    name = "rabbitmq"
    stop_seconds = 30

    def __init__(self, folder: Path, port: int) -> None:
        at = folder.resolve()
        ours = {
            "HOME": str(at),  # the cookie
            "ERL_EPMD_PORT": str(free_port()),
            "ERL_EPMD_ADDRESS": LOOPBACK,
            "RABBITMQ_NODENAME": f"test{port}@localhost",
            "RABBITMQ_NODE_IP_ADDRESS": LOOPBACK,
            "RABBITMQ_NODE_PORT": str(port),
            "RABBITMQ_DIST_PORT": str(free_port()),
            "RABBITMQ_MNESIA_BASE": str(at / "mnesia"),
            "RABBITMQ_LOG_BASE": str(at / "log"),
            "RABBITMQ_LOGS": "-",
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(at / "plugins"),
            "RABBITMQ_CONFIG_FILE": str(at / "rabbitmq"),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+S 1:1",
        }
        super().__init__(folder, port, environ={**os.environ, **ours})

    @property
    def url(self) -> str:
        return f"amqp://guest:guest@{LOOPBACK}:{self.port}//"

    def command(self) -> list[str]:
        return ["sh", "-c", f"epmd & exec {_found('rabbitmq-server', '/usr/lib/rabbitmq/bin')}"]

    def answers(self) -> bool:
        with Connection(self.url, connect_timeout=2) as connection:
            try:
                connection.connect()
            except (OperationalError, OSError):
                return False
        return True


class MariaDB(Part):
    """`mariadbd` over a folder of its own, in a time zone that is not ours."""

    name = "mariadb"

    @property
    def url(self) -> str:
        return f"mysql://root@{LOOPBACK}:{self.port}"

    def _words(self, command: str) -> list[str]:
        root = ["--user=root"] if os.geteuid() == 0 else []
        # In a temporary folder that it shares, a server that starts removes the tables that another one is using.
        folders = [f"--datadir={self.folder}", f"--tmpdir={self.folder.parent}"]
        return [_found(command), "--no-defaults", *folders, *root]

    def prepare(self) -> None:
        super().prepare()
        if not (self.folder / "mysql").exists():
            words = ["--skip-test-db", "--auth-root-authentication-method=normal"]
            subprocess.run([*self._words("mariadb-install-db"), *words], check=True, capture_output=True)

    def command(self) -> list[str]:
        # Distributions configure utf8mb4; the bare default was long this.
        words = [f"--bind-address={LOOPBACK}", f"--port={self.port}", "--character-set-server=latin1"]
        words += [f"--socket={self.folder.parent / 'mariadb.sock'}", "--innodb-flush-log-at-trx-commit=0"]
        return [*self._words("mariadbd"), *words, "--default-time-zone=+05:30"]

    def answers(self) -> bool:
        try:
            pymysql.connect(host=LOOPBACK, port=self.port, user="root", connect_timeout=2).close()
        except pymysql.err.OperationalError:
            return False
        return True

    def execute(self, *statements: str, database: str | None = None) -> None:
        with pymysql.connect(host=LOOPBACK, port=self.port, user="root", database=database, autocommit=True) as session:
            for statement in statements:
                session.cursor().execute(statement)


class Worker(Part):
    """`python -m imgpipe_orchestration.dagster_side.worker`; it ends with the test."""

    name = "worker"
    stop_seconds = 60
    url = ""

    def __init__(
        self, folder: Path, *, environ: Mapping[str, str], queues: str = ",".join(QUEUES), concurrency: int = 1
    ) -> None:
        super().__init__(folder, environ=environ)
        self.log_file = folder.parent / "logs" / f"{folder.name}.log"
        self._words = ["--queues", queues, "--concurrency", str(concurrency)]

    def command(self) -> list[str]:
        return [sys.executable, "-m", "imgpipe_orchestration.dagster_side.worker", *self._words]

    def answers(self) -> bool:
        return self.exit_code() is None and "worker ready" in self.log_file.read_text()

    def send(self, number: signal.Signals) -> None:
        """To the worker and every process below it."""
        assert self.pid is not None
        for process in (psutil.Process(self.pid), *psutil.Process(self.pid).children(recursive=True)):
            with suppress(psutil.NoSuchProcess):
                process.send_signal(number)

    def vanish(self) -> None:
        """As a machine does that loses its power: all of it at once."""
        self.send(signal.SIGSTOP)  # so that none has a last word
        self.send(signal.SIGKILL)
        self.kill()
