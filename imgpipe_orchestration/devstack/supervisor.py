"""Keeps the parts of a stack alive: starts them in order, restarts what dies, stops everything in order.

It looks at them twice a second. A part that hangs is left alone, for whoever runs the stack to look at.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType

import psutil

from imgpipe_orchestration.devstack import stackfile
from imgpipe_orchestration.devstack.first_day import first_day
from imgpipe_orchestration.devstack.plan import MARKER, Plan
from imgpipe_orchestration.devstack.process import Part, open_log
from imgpipe_orchestration.errors import BackendUnavailable

FIRST_PAUSE_SECONDS = 0.5
LONGEST_PAUSE_SECONDS = 30.0
"""Pause before a restart: doubles with each further death, up to this."""
LOOK_SECONDS = 0.5
STEADY_SECONDS = 60.0
"""After a part has lived this long, the next pause is the first one again."""
TELL_SECONDS = 20.0
"""After so long at its start, what a part is waiting for is worth a line: a gateway runs, and its object store does not
let it in."""

_STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class StopRequested(Exception):
    """Somebody asked the stack to stop."""


class Watched:
    """A part and the supervisor's state of it."""

    def __init__(self, part: Part) -> None:
        self.part = part
        self.pause = 0.0
        self.restarts = 0
        self.restart_at: float | None = None
        self.ready = False

    def launch(self) -> None:
        self.restart_at, self.ready = None, False
        self.part.start()

    def died(self) -> float:
        """Decide when to start it again; the seconds until then."""
        steady = time.monotonic() - self.part.started > STEADY_SECONDS
        self.pause = FIRST_PAUSE_SECONDS if steady or not self.pause else min(2 * self.pause, LONGEST_PAUSE_SECONDS)
        self.restart_at, self.ready = time.monotonic() + self.pause, False
        return self.pause


class Supervisor:
    """Runs one plan until it is told to stop. `say` is called with each line for the user."""

    def __init__(self, plan: Plan, say: Callable[[str], None]) -> None:
        self.plan = plan
        self.say = say
        self._watched = [Watched(part) for part in plan.parts]
        self._started_at = datetime.now(UTC).isoformat(timespec="seconds")
        self._asked = False
        """Whether a stop signal came that `_pause` has not told of."""
        self._changed = False
        """Whether stack.json is out of date."""

    def run(self, on_ready: Callable[[], None]) -> None:
        """Start everything, call `on_ready`, then watch until a stop signal. Call it with the stack's lock held.

        Raises:
            BackendUnavailable: a part could not be started; everything else was stopped again.
        """
        stackfile.remove(self.plan.data_dir)
        for name in end_orphans(self.plan.data_dir):
            self.say(f"ended {name}, left by a stack that died")
        with self._signals():
            try:
                self._start()
                on_ready()
                while True:
                    self._watch()
            except StopRequested:
                self.say("stopping")
            finally:
                self._stop()

    # --- starting ------------------------------------------------------------------------------------------------

    def _start(self) -> None:
        backends = [w for w in self._watched if w.part in self.plan.backends]
        services = [w for w in self._watched if w.part in self.plan.services]
        for watched in backends:
            watched.launch()
        self._await_ready(backends)
        if not self.plan.first_day_given:
            self.plan.begin_partitions(first_day(self.plan.settings.database_url))
        self._await_exit(self._provision())
        for watched in services:
            watched.launch()
        self._await_ready(services)
        self._write_stack_file()

    def _await_ready(self, group: Sequence[Watched]) -> None:
        waiting, told = list(group), set()
        while waiting:
            for watched in list(waiting):
                code, part = watched.part.exit_code(), watched.part
                if code is not None:
                    raise BackendUnavailable(f"{part.name} ended at its start ({_how(code)}):\n{part.last_words()}")
                if part.answers():
                    part.settle()
                    watched.ready = True
                    self.say(f"{part.name} answers")
                    waiting.remove(watched)
                elif time.monotonic() - part.started > part.start_seconds:
                    raise BackendUnavailable(f"{part.name} does not answer at {part.url}:\n{part.last_words()}")
                elif part.name not in told and time.monotonic() - part.started > TELL_SECONDS:
                    told.add(part.name)
                    self.say(f"{part.name} runs, but is not ready yet ({part.url}); its log: {part.log_file}")
            self._pause(0.05 if waiting else 0)

    def _provision(self) -> subprocess.Popen[bytes]:
        file = self.plan.data_dir / "logs" / "provision.log"
        file.parent.mkdir(exist_ok=True)
        with open_log(file, "wb") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "imgpipe_orchestration.devstack.provision"],
                cwd="/",
                env=self.plan.shared,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def _await_exit(self, process: subprocess.Popen[bytes]) -> None:
        try:
            while process.poll() is None:
                self._pause(0.05)
        except StopRequested:
            process.kill()
            process.wait()
            raise
        if process.returncode != 0:
            lines = (self.plan.data_dir / "logs" / "provision.log").read_text(errors="replace").splitlines()
            raise BackendUnavailable("The databases and buckets could not be prepared:\n" + "\n".join(lines[-5:]))

    # --- watching ------------------------------------------------------------------------------------------------

    def _watch(self) -> None:
        """One look at every part, then a short sleep."""
        for watched in self._watched:
            part = watched.part
            if watched.restart_at is not None:
                if time.monotonic() >= watched.restart_at:
                    self._relaunch(watched)
                    self._changed = True
            elif (code := part.exit_code()) is not None:
                part.sweep()
                pause = watched.died()
                self.say(f"{part.name} ended ({_how(code)}); starting it again in {pause:g} s. Log: {part.log_file}")
                self._changed = True
            elif not watched.ready and part.answers():
                watched.ready = True
                self.say(f"{part.name} answers again")
        if self._changed:
            try:
                self._write_stack_file()
            except OSError as error:
                self.say(f"stack.json stays as it was for now: {error}")
        self._pause(LOOK_SECONDS)

    def _relaunch(self, watched: Watched) -> None:
        """Start a part again; later, when the machine lacks disk space, memory or descriptors for it now."""
        try:
            watched.launch()
        except (OSError, BackendUnavailable) as error:
            pause = watched.died()
            self.say(f"{watched.part.name} cannot be started ({error}); trying again in {pause:g} s")
        else:
            watched.restarts += 1

    def _write_stack_file(self) -> None:
        parts = [
            {
                "name": w.part.name,
                "pid": w.part.pid,
                "url": w.part.url,
                "log": str(w.part.log_file),
                "restarts": w.restarts,
            }
            for w in self._watched
        ]
        content = {
            "pid": os.getpid(),
            "started_at": self._started_at,
            "environment": self.plan.public_environment(),
            "parts": parts,
            "notes": self.plan.ports.notes,
        }
        stackfile.write(self.plan.data_dir, content)
        self._changed = False

    # --- stopping ------------------------------------------------------------------------------------------------

    def _stop(self) -> None:
        """Services first, so that they can still write down what they were doing; a second signal kills at once."""
        stackfile.remove(self.plan.data_dir)  # first, so that no command uses a stack that is stopping
        services = [w.part for w in self._watched if w.part in self.plan.services]
        backends = [w.part for w in self._watched if w.part in self.plan.backends]
        impatient = False
        for group in (services, backends):
            running = [part for part in group if part.pid is not None]
            for part in running:
                part.ask_to_stop()
            deadline = time.monotonic() + max((part.stop_seconds for part in running), default=0)
            while not impatient and time.monotonic() < deadline and any(p.exit_code() is None for p in running):
                try:
                    self._pause(0.05)
                except StopRequested:
                    impatient = True
            for part in running:
                part.kill()
        # Now and not at the end of this process: the next stack may start as soon as the lock is released.
        self.plan.ports.release()

    # --- signals -------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        """Note stop signals, for `_pause`."""
        before = {number: signal.signal(number, self._note) for number in _STOP_SIGNALS}
        if before[signal.SIGHUP] is signal.SIG_IGN:
            signal.signal(signal.SIGHUP, signal.SIG_IGN)  # started by nohup: outlive the terminal
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _note(self, _: int, __: FrameType | None) -> None:
        self._asked = True

    def _pause(self, seconds: float) -> None:
        """Sleep; a signal does not shorten it.

        Raises:
            StopRequested: a stop signal came.
        """
        time.sleep(seconds)
        if self._asked:
            self._asked = False
            raise StopRequested


def end_orphans(data_dir: Path) -> list[str]:
    """Kill what a supervisor that was killed left for `data_dir`, whose lock we hold; what was killed.

    On Linux the kernel ends the parts with it, but not what they have started (runs); on macOS it ends none of them.
    PostgreSQL, which overwrites its environment with its title, is ended by its part.
    """
    left = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.pid != os.getpid() and process.environ().get(MARKER) == str(data_dir):
                left.append((process, f"{process.name()} ({process.pid})"))
                process.kill()
    psutil.wait_procs([process for process, _ in left], timeout=5)
    return [name for _, name in left]


def _how(code: int) -> str:
    return f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
