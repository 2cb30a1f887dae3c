"""A RabbitMQ from the distribution's packages, the other broker that workers take runs from."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from kombu import Connection
from kombu.exceptions import OperationalError

from imgpipe_orchestration.devstack.ports import LOOPBACK, free_port
from imgpipe_orchestration.devstack.process import Part
from imgpipe_orchestration_tests.lacking import lacking

# Debian's /usr/sbin/rabbitmq-server changes to a folder and a user of its own.
SERVER = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")


class RabbitMQ(Part):
    """`rabbitmq-server` with a folder of its own, and Erlang's port mapper with it: by itself that would outlive it."""

    name = "rabbitmq"
    stop_seconds: ClassVar[float] = 30

    def __init__(self, folder: Path, port: int) -> None:
        super().__init__(folder, port, environ=_environment(folder.resolve(), port))

    @property
    def url(self) -> str:
        return f"amqp://guest:guest@{LOOPBACK}:{self.port}//"

    def command(self) -> list[str]:
        return ["sh", "-c", f"epmd & exec {SERVER}"]

    def answers(self) -> bool:
        with Connection(self.url, connect_timeout=2) as connection:
            try:
                connection.connect()
            except (OperationalError, OSError):
                return False
        return True


def _environment(folder: Path, port: int) -> Mapping[str, str]:
    ours = {
        "HOME": str(folder),  # the cookie
        "ERL_EPMD_PORT": str(free_port()),
        "ERL_EPMD_ADDRESS": LOOPBACK,
        "RABBITMQ_NODENAME": f"test{port}@localhost",
        "RABBITMQ_NODE_IP_ADDRESS": LOOPBACK,
        "RABBITMQ_NODE_PORT": str(port),
        "RABBITMQ_DIST_PORT": str(free_port()),
        "RABBITMQ_MNESIA_BASE": str(folder / "mnesia"),
        "RABBITMQ_LOG_BASE": str(folder / "log"),
        "RABBITMQ_LOGS": "-",
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "plugins"),
        "RABBITMQ_CONFIG_FILE": str(folder / "rabbitmq"),
        "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+S 1:1",
    }
    return {**os.environ, **ours}


def require_rabbitmq() -> None:
    """Skip where there is no RabbitMQ; on CI its absence is a failure."""
    if SERVER.exists():
        return
    lacking("rabbitmq-server", "make test-servers")
