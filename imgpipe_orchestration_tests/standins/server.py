"""The server as a part that tests start, and the settings that make it everybody's partner."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from imgpipe_orchestration.devstack.plan import played_at
from imgpipe_orchestration.devstack.ports import free_port
from imgpipe_orchestration.devstack.services import StandIns
from imgpipe_orchestration_tests.parts import running

ROOT = Path(__file__).parents[2]


class FaultyStandIns(StandIns):
    """The stand-ins that fail on request."""

    module = "imgpipe_orchestration_tests.standins.app"

    @property
    def settings(self) -> dict[str, str]:
        """What makes a stack ask them, in place of its own."""
        return {**played_at(self.url), "ALLOWED_PRIVATE_HOSTS": self.url.removeprefix("http://")}


@contextmanager
def partners(folder: Path) -> Iterator[FaultyStandIns]:
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}  # the tests are not installed
    with running(FaultyStandIns(folder / "partners", free_port(), environ=environ)) as server:
        yield server
