"""Keeps the parts of a stack alive: starts them in order, restarts what dies, stops everything in order.

A part that hangs is left alone, for whoever runs the stack to look at.
"""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from types import FrameType

from imgpipe_orchestration.devstack import stackfile
from imgpipe_orchestration.devstack.plan import Plan
from imgpipe_orchestration.devstack.process import Part
from imgpipe_orchestration.errors import BackendUnavailable

_LOOK_SECONDS = 1.0
"""From one look at the parts to the next. One that dies at once is started again this often."""
_STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class StopRequested(Exception):
    """Somebody asked the stack to stop."""


class Supervisor:
    """Runs one plan until it is told to stop. `say` is called with each line for the user."""

    def __init__(self, plan: Plan, say: Callable[[str], None]) -> None:
        self.plan = plan
        self.say = say
        self._restarts: Counter[str] = Counter()
        self._failing: set[str] = set()
        """Parts that have ended and could not be started again."""
        self._stop_asked = False
        self._started_at = datetime.now(UTC).isoformat(timespec="seconds")

    def run(self, on_ready: Callable[[], None]) -> None:
        """Start everything, call `on_ready`, then watch until a stop signal. Call it with the stack's lock held.

        Raises:
            BackendUnavailable: a part could not be started; everything else was stopped again.
        """
        stackfile.remove(self.plan.data_dir)
        for number in _STOP_SIGNALS:
            # Under nohup a stack outlives its terminal. A background job of a script ignores SIGINT, and is to obey it.
            if number is not signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, self._on_stop_signal)
        try:
            self._start(self.plan.backends)
            self._provision()
            *others, last = self.plan.services  # Dagster's daemon looks for the code server once, at its start
            self._start(others)
            self._start([last])
            self._write_stack_file()
            on_ready()
            while True:
                self._obey()
                for part in self.plan.parts:
                    if (code := part.exit_code()) is not None:
                        self._start_again(part, code)
                time.sleep(_LOOK_SECONDS)
        except StopRequested:
            self.say("stopping")
        finally:
            self._stop()

    def _start(self, parts: Sequence[Part]) -> None:
        for part in parts:
            part.start()
            self._obey()
        for part in parts:
            part.wait_until_ready()
            self._obey()
            self.say(f"{part.name} answers")

    def _provision(self) -> None:
        """Databases, schema, buckets and indexes; it says from which day on there are images."""
        command = [sys.executable, "-m", "imgpipe_orchestration.devstack.provision"]
        done = subprocess.run(command, cwd="/", env=self.plan.shared, capture_output=True, text=True, check=False)
        lines = done.stderr.splitlines()
        if done.returncode != 0:
            raise BackendUnavailable("The databases and buckets could not be prepared:\n" + "\n".join(lines[-5:]))
        for line in lines:
            self.say(line)
        self.plan.begin_partitions(done.stdout.split()[-1])  # the last it says

    def _start_again(self, part: Part, code: int) -> None:
        """Start a part that has ended with this code; if that fails, the next look tries it again."""
        if part.name not in self._failing:
            part.kill()  # what it has started and left behind; once, because its pid may be another's afterwards
            how = f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
            self.say(f"{part.name} ended ({how}); starting it again. Log: {part.log_file}")
        try:
            part.start()
        except (OSError, BackendUnavailable) as error:
            # The machine lacks disk space, memory or descriptors for it now.
            self.say(f"{part.name} cannot be started ({error}); trying again")
            self._failing.add(part.name)
            return
        self._failing.discard(part.name)
        self._restarts[part.name] += 1
        with contextlib.suppress(OSError):  # a full disk: stack.json stays as it was until the next restart
            self._write_stack_file()

    def _write_stack_file(self) -> None:
        content = {
            "pid": os.getpid(),
            "started_at": self._started_at,
            "environment": self.plan.public_environment(),
            "parts": [self._described(part) for part in self.plan.parts],
            "notes": self.plan.ports.notes,
        }
        stackfile.write(self.plan.data_dir, content)

    def _described(self, part: Part) -> dict[str, object]:
        about = {"name": part.name, "pid": part.pid, "url": part.url, "log": str(part.log_file)}
        return {**about, "restarts": self._restarts[part.name]}

    def _stop(self) -> None:
        """Services first, so that they can still write down what they were doing; a second signal kills at once."""
        with contextlib.suppress(StopRequested):
            stackfile.remove(self.plan.data_dir)  # first, so that no command uses a stack that is stopping
            for group in (self.plan.services, self.plan.backends):
                for part in group:
                    part.ask_to_stop()
                for part in group:
                    part.await_stop()
        for number in _STOP_SIGNALS:
            signal.signal(number, signal.SIG_IGN)
        for part in self.plan.parts:
            part.kill()
        # Now and not at the end of this process: the next stack may start as soon as the lock is released.
        self.plan.ports.release()

    def _on_stop_signal(self, _: int, __: FrameType | None) -> None:
        self._stop_asked = True
        raise StopRequested

    def _obey(self) -> None:
        """Stop if a signal has asked for it: Python drops what a handler raises during a callback, as after a fork."""
        if self._stop_asked:
            raise StopRequested
