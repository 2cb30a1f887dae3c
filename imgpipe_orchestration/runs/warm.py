"""The client of `forkserver`: asks it for processes."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading

import dagster as dg
from dagster._core.origin import JobPythonOrigin
from dagster._grpc.types import ExecuteRunArgs

from imgpipe_orchestration.errors import BackendUnavailable

ANSWER_SECONDS = 60.0
"""For how long a forkserver may be silent before it is replaced; it needs three seconds when it has just started."""


class WarmProcess:
    """A forkserver, started when it is first needed and replaced if it died. Thread-safe."""

    def __init__(self, *, ends_runs: bool = False) -> None:
        """
        Args:
            ends_runs: interrupt its runs when it ends, and so when this process ends; otherwise they go on.
        """
        self._ends_runs = ends_runs
        self._lock = threading.Lock()
        self._server: _Forkserver | None = None

    def preload(self) -> None:
        """Start the forkserver now instead of when the first run waits for it."""
        with self._lock:
            self._server = self._server or _Forkserver(ends_runs=self._ends_runs)

    def start(self, instance: dg.DagsterInstance, run_id: str, origin: JobPythonOrigin | None) -> int:
        """Fork a process for a run that is in `instance` and whose code is at `origin`; returns its pid.

        Raises:
            BackendUnavailable: no process could be forked.
        """
        if origin is None:
            raise BackendUnavailable(f"run {run_id} does not say where its code is")
        words = ExecuteRunArgs(origin, run_id, instance.get_ref()).get_command_args()
        # The words before `api` only say how to call `dagster`.
        return self._fork(list(words[words.index("api") :]))

    def _fork(self, words: list[str]) -> int:
        with self._lock:
            for _ in range(2):  # replaces a forkserver that died since the last run, once
                if self._server is None:
                    self._server = _Forkserver(ends_runs=self._ends_runs)
                try:
                    return self._server.fork(words)
                except OSError:
                    self._server.close()
                    self._server = None
        raise BackendUnavailable("The process that forks the runs ends as soon as it starts; see its log.")

    def close(self) -> None:
        with self._lock:
            if self._server is not None:
                self._server.close()
                self._server = None


class _Forkserver:
    def __init__(self, *, ends_runs: bool) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            words = [str(theirs.fileno()), *(["--ends-runs"] if ends_runs else [])]
            self._process = subprocess.Popen(
                [sys.executable, "-m", "imgpipe_orchestration.runs.forkserver", *words],
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                # Otherwise macOS ends a forked process that uses its frameworks, as reading the system's proxy does.
                env={**os.environ, "OBJC_DISABLE_INITIALIZE_FORK_SAFETY": "YES"},
            )
        ours.settimeout(ANSWER_SECONDS)
        self._socket = ours
        self._answers = ours.makefile("rb")

    def fork(self, words: list[str]) -> int:
        """The pid of a new process that runs `dagster` with `words`.

        Raises:
            OSError: the forkserver is gone, or does not answer.
            BackendUnavailable: it goes on, and cannot fork at the moment.
        """
        self._socket.sendall(json.dumps(words).encode() + b"\n")
        answer = self._answers.readline()
        if not answer:
            raise ConnectionResetError("the forkserver ended")
        pid = int(answer)
        if pid < 0:
            raise BackendUnavailable(f"No process can be started for the run: {os.strerror(-pid)}.")
        return pid

    def close(self) -> None:
        """Close the socket, which ends the process."""
        self._answers.close()
        self._socket.close()
        try:
            self._process.wait(1)
        except subprocess.TimeoutExpired:  # it is still importing and does not read its socket yet
            self._process.kill()
            self._process.wait()
