"""How a stack is stopped, without a stack."""

import dataclasses
import os
import signal
from pathlib import Path

import pytest

from imgpipe_orchestration.devstack.plan import make_plan
from imgpipe_orchestration.devstack.process import Part
from imgpipe_orchestration.devstack.supervisor import Supervisor


class _Callback:
    """Python drops what is raised while an object is deleted, as it does in callbacks after a fork."""

    def __del__(self) -> None:
        os.kill(os.getpid(), signal.SIGTERM)


class _Signalled(Part):
    name = "signalled"

    def command(self) -> list[str]:
        return ["sleep", "600"]

    def start(self) -> None:
        super().start()
        _Callback()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_stop_signal_that_arrives_during_a_callback_stops_the_stack(tmp_path: Path) -> None:
    part = _Signalled(tmp_path / "part")
    plan = dataclasses.replace(make_plan(tmp_path, {}, dagster=False), backends=[part], services=[])
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    said: list[str] = []
    try:
        Supervisor(plan, said.append).run(on_ready=lambda: None)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    assert said == ["stopping"]
    assert part.exit_code() is not None
