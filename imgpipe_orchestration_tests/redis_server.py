"""A Redis from the distribution's packages, for what runs on several machines."""

from __future__ import annotations

import shutil

from redis import Redis
from redis.exceptions import RedisError

from imgpipe_orchestration.devstack.ports import LOOPBACK
from imgpipe_orchestration.devstack.process import Part
from imgpipe_orchestration_tests.lacking import lacking


class RedisServer(Part):
    """`redis-server` that keeps nothing: a broker's queues are worth no more than Dagster's own record of its runs."""

    name = "redis"

    @property
    def url(self) -> str:
        return f"redis://{LOOPBACK}:{self.port}/0"

    def command(self) -> list[str]:
        words = ["redis-server", "--bind", LOOPBACK, "--port", str(self.port), "--dir", str(self.folder)]
        return [*words, "--save", "", "--appendonly", "no"]

    def answers(self) -> bool:
        with Redis(host=LOOPBACK, port=self.port, socket_connect_timeout=2) as client:
            try:
                return bool(client.ping())
            except RedisError:
                return False


def require_redis() -> None:
    """Skip where there is no Redis; on CI its absence is a failure."""
    if shutil.which("redis-server"):
        return
    lacking("redis-server", "make test-servers")
