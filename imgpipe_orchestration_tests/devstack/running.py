"""`imgpipe up` as a real child process, as a shell would start it."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from imgpipe_orchestration.cli.options import EXPORTED
from imgpipe_orchestration.devstack.demo.scenario import Stack
from imgpipe_orchestration.settings import Settings

IMGPIPE = [sys.executable, "-m", "imgpipe_orchestration.cli"]

PARTNERS_ELSEWHERE = {
    "OPENAI_API_KEY": "key",
    "GOOGLE_VISION_API_KEY": "key",
    "FLOWISE_BASE_URL": "http://127.0.0.1:9",
    "EXTERNAL_API_GET_URL": "http://127.0.0.1:9",
}
"""Names every partner, so that no stand-in is started: one process less where nobody needs it."""


def clean_environment(**extra: str) -> dict[str, str]:
    """Our environment without any setting of the product, plus `extra`."""
    names = {name.upper() for name in Settings.model_fields} | {"DAGSTER_HOME", EXPORTED}
    return {name: value for name, value in os.environ.items() if name not in names} | extra


def imgpipe(*words: str, environ: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run one command to its end."""
    environ = dict(environ or clean_environment())
    return subprocess.run([*IMGPIPE, *words], env=environ, capture_output=True, text=True, timeout=240, check=False)


def wait_for(condition: Callable[[], Any], what: str, seconds: float = 300, *, every: float = 0.05) -> Any:
    """The first true value of `condition`, asked every so many seconds until `seconds` have passed: many, for on a slow
    machine several stacks share the cores. The test's own timeout may come first."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, f"waited {seconds} s for {what}"
        time.sleep(every)
    return value


def graphql(stack: Stack, query: str, **variables: Any) -> Any:
    """What Dagster answers."""
    body = {"query": query, "variables": variables}
    return stack.accepted("POST", stack.environment["DAGSTER_URL"] + "/graphql", json=body).json()["data"]


class Up:
    """A running `imgpipe up`."""

    def __init__(self, data_dir: Path, *words: str, environ: Mapping[str, str]) -> None:
        self.data_dir = data_dir
        self.output_file = data_dir.with_name(f"{data_dir.name}-{time.monotonic_ns()}.out")
        with self.output_file.open("wb") as output:
            self.process = subprocess.Popen(
                [*IMGPIPE, "up", "--data", str(data_dir), *words],
                env=dict(environ),
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def output(self) -> str:
        return self.output_file.read_text()

    def wait_until_ready(self) -> None:
        wait_for(lambda: "Ready after" in self.output or self.process.poll() is not None, "the stack")
        assert self.process.poll() is None, self.output

    def stack(self) -> dict[str, Any]:
        written: dict[str, Any] = json.loads((self.data_dir / "stack.json").read_text())
        return written

    def part(self, name: str) -> dict[str, Any]:
        return next(part for part in self.stack()["parts"] if part["name"] == name)

    @property
    def environment(self) -> dict[str, str]:
        environment: dict[str, str] = self.stack()["environment"]
        return environment

    def interrupt(self) -> int:
        """Ctrl-C; the exit code."""
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(120)

    def processes(self) -> list[psutil.Process]:
        """Everything that belongs to this stack but its supervisor."""
        return [p for p in psutil.process_iter() if _data_of(p) == str(self.data_dir) or self._is_postgres(p)]

    def _is_postgres(self, process: psutil.Process) -> bool:
        try:
            return str(self.data_dir / "postgres") in process.cmdline()
        except psutil.Error:
            return False


@contextmanager
def up(data_dir: Path, *words: str, **settings: str) -> Iterator[Up]:
    """Start a stack with no stand-ins unless `settings` say otherwise; stop it at the end."""
    with whole(data_dir, *words, **{**PARTNERS_ELSEWHERE, **settings}) as running:
        yield running


@contextmanager
def whole(data_dir: Path, *words: str, **settings: str) -> Iterator[Up]:
    """Start a stack with a stand-in of every partner that `settings` do not name; stop it at the end."""
    running = Up(data_dir, *words, environ=clean_environment(**settings))
    try:
        running.wait_until_ready()
        yield running
    finally:
        if running.process.poll() is None:
            running.interrupt()


def _data_of(process: psutil.Process) -> str | None:
    try:
        return process.environ().get("IMGPIPE_DATA_DIR")
    except psutil.Error:
        return None
