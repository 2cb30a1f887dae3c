"""A Celery worker, as on a machine of its own."""

from __future__ import annotations

import signal
import sys
from collections.abc import Mapping
from pathlib import Path

import psutil

from imgpipe_orchestration.dagster_side.run_tags import QUEUES
from imgpipe_orchestration.devstack.process import Part


class Worker(Part):
    """`python -m imgpipe_orchestration.dagster_side.worker`; it ends with the test."""

    name = "worker"
    stop_seconds = 60

    def __init__(
        self, folder: Path, *, environ: Mapping[str, str], queues: str = ",".join(QUEUES), concurrency: int = 1
    ) -> None:
        super().__init__(folder, 0, environ=environ)
        self.log_file = folder.parent / "logs" / f"{folder.name}.log"
        self._words = ["--queues", queues, "--concurrency", str(concurrency)]

    @property
    def url(self) -> str:
        return ""

    def command(self) -> list[str]:
        return [sys.executable, "-m", "imgpipe_orchestration.dagster_side.worker", *self._words]

    def answers(self) -> bool:
        return self.exit_code() is None and "worker ready" in self.log_file.read_text()

    def vanish(self) -> None:
        """As a machine does that loses its power: all of it at once."""
        assert self.pid is not None
        family = [psutil.Process(self.pid), *psutil.Process(self.pid).children(recursive=True)]
        for process in family:
            process.suspend()  # so that none has a last word
        for process in family:
            process.send_signal(signal.SIGKILL)
        self.kill()
