"""Base classes of the stack's child processes: prepare, start, probe, stop, kill."""

import contextlib
import http.client
import os
import signal
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from imgpipe_orchestration.dagster_side.parent_death import die_with_parent
from imgpipe_orchestration.devstack.ports import LOOPBACK, listening
from imgpipe_orchestration.errors import BackendUnavailable

PROBE_SECONDS = 5
"""Timeout of a probe; long enough for a busy machine."""
START_SECONDS = 180
"""How long a part may take until it answers; long enough for a busy machine."""


class Part(ABC):
    """A server that runs as a foreground child in a session of its own.

    It has its own session so that a Ctrl-C in the terminal reaches only the supervisor, which then stops the parts in
    the right order, and so that its own children can be ended with it, as a process group.

    Start parts from the main thread: on Linux the kernel ends a part when the *thread* that started it ends. That is
    how no part outlives a supervisor that was killed with -9.
    """

    name: ClassVar[str]
    stop_signal: ClassVar[signal.Signals] = signal.SIGTERM
    stop_seconds: ClassVar[float] = 8
    """How long it may take to stop before it is killed."""
    user: str | None = None
    """System user to run as, when not ours."""

    def __init__(self, folder: Path, port: int = 0, *, environ: Mapping[str, str] | None = None) -> None:
        """
        Args:
            folder: for its data; created when missing.
            port: TCP port on loopback, of a part that has one.
            environ: its whole environment (default: this process's).
        """
        self.folder = folder.resolve()
        self.port = port
        self.environ = environ
        self.log_file = self.folder.parent / "logs" / f"{self.name}.log"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Where clients reach it."""
        return f"{LOOPBACK}:{self.port}"

    @abstractmethod
    def command(self) -> list[str]:
        """What to run, in the foreground."""

    def prepare(self) -> None:
        """Prepare what the process needs to start. Called before every start."""
        self.folder.mkdir(parents=True, exist_ok=True)

    def answers(self) -> bool:
        """Whether it serves requests at this moment; at most PROBE_SECONDS, and never raises."""
        return listening(self.port)

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    def start(self) -> None:
        def in_child() -> None:
            # A background job of a non-interactive shell ignores SIGINT, and children inherit that.
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            die_with_parent(self.stop_signal)

        self.prepare()
        self.log_file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with self.log_file.open("ab") as log:
            self._process = subprocess.Popen(
                self.command(),
                cwd="/",
                env=self.environ,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                user=self.user,
                preexec_fn=in_child,  # noqa: PLW1509 - the parent-death signal can only be asked for by the child
            )

    def exit_code(self) -> int | None:
        """None while it runs; negative when a signal ended it."""
        if self._process is None:
            raise RuntimeError(f"{self.name} was never started")
        return self._process.poll()

    def wait_until_ready(self) -> None:
        """Block until it answers.

        Raises:
            BackendUnavailable: it ended, or did not answer in time; with the end of its log.
        """
        deadline = time.monotonic() + START_SECONDS
        while not self.answers():
            code = self.exit_code()
            if code is not None:
                raise BackendUnavailable(f"{self.name} ended at its start with code {code}:\n{self._last_words()}")
            if time.monotonic() > deadline:
                raise BackendUnavailable(f"{self.name} does not answer at {self.url}:\n{self._last_words()}")
            time.sleep(0.02)

    def _last_words(self) -> str:
        """The last lines of its log, for a message."""
        with self.log_file.open("rb") as log:
            log.seek(max(0, self.log_file.stat().st_size - 4000))
            return "\n".join(log.read().decode(errors="replace").splitlines()[-8:])

    def ask_to_stop(self) -> None:
        """Send the stop signal to it and to what it started; returns at once."""
        self._signal_group(self.stop_signal)

    def await_stop(self) -> None:
        """Wait until it has stopped, as asked; kill it if it does not in time, and what it has left behind."""
        if self._process is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(self.stop_seconds)
            self.kill()

    def kill(self) -> None:
        """End it, also when it hangs, and what it has started and left behind."""
        if self._process is not None:
            self._signal_group(signal.SIGKILL)
            self._process.wait()

    def _signal_group(self, number: signal.Signals) -> None:
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):  # PermissionError: macOS, on a zombie
                os.killpg(self._process.pid, number)


class HttpPart(Part):
    """A part that serves HTTP. It is ready once `health_path` is answered with any status but 5xx."""

    health_path: ClassVar[str] = "/health"

    @property
    def url(self) -> str:
        return f"http://{LOOPBACK}:{self.port}"

    def answers(self) -> bool:
        connection = http.client.HTTPConnection(LOOPBACK, self.port, timeout=PROBE_SECONDS)
        try:
            connection.request("GET", self.health_path)
            return connection.getresponse().status < 500
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()
