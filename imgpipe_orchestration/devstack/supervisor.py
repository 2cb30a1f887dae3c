"""Keeps the parts of a stack alive: starts them in order, restarts what dies or hangs, stops everything in order.

One thread sleeps until a signal arrives (SIGCHLD among them) or something is due. So a death is seen at once; a part
that hangs is found by regular probes.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from types import FrameType

from imgpipe_orchestration.devstack import stackfile
from imgpipe_orchestration.devstack.logfiles import keep_small
from imgpipe_orchestration.devstack.orphans import end_orphans
from imgpipe_orchestration.devstack.plan import Plan
from imgpipe_orchestration.devstack.postgres import Postgres
from imgpipe_orchestration.devstack.services import CodeServer, Webserver
from imgpipe_orchestration.devstack.watched import Watched
from imgpipe_orchestration.errors import BackendUnavailable

HOUSEKEEPING_SECONDS = 60.0
TELL_SECONDS = 20.0
"""After so long at its start, what a part is waiting for is worth a line: a gateway runs, and its object store does not
let it in."""

_STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class StopRequested(Exception):
    """Somebody asked the stack to stop."""


class Supervisor:
    """Runs one plan until it is told to stop. `say` is called with each line for the user."""

    def __init__(self, plan: Plan, say: Callable[[str], None]) -> None:
        self.plan = plan
        self.say = say
        self._watched = [Watched(part) for part in plan.parts]
        self._started_at = datetime.now(UTC).isoformat(timespec="seconds")
        self._pipe: tuple[int, int] = (-1, -1)
        self._unwritten = False
        """Whether stack.json lacks the last change, because writing it failed."""

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
            self._launch(watched)
        self._await_ready(backends)
        provisioning = self._provision()
        if any(isinstance(w.part, Postgres) for w in backends):
            # These import for seconds, and then need only Dagster's database, which our PostgreSQL has already.
            for watched in services:
                if isinstance(watched.part, (CodeServer, Webserver)):
                    self._launch(watched)
        self._await_exit(provisioning)
        for watched in services:
            if watched.part.pid is None:
                self._launch(watched)
        self._await_ready(services)
        self._write_stack_file()

    def _launch(self, watched: Watched) -> None:
        watched.restart_at = None
        watched.ready = False
        watched.launched = time.monotonic()
        watched.part.start()

    def _relaunch(self, watched: Watched) -> None:
        """Start a part again; later, when the machine lacks disk space, memory or descriptors for it now."""
        try:
            self._launch(watched)
        except (OSError, BackendUnavailable) as error:
            pause = watched.next_pause()
            watched.restart_at = time.monotonic() + pause
            self.say(f"{watched.part.name} cannot be started ({error}); trying again in {pause:g} s")
        else:
            watched.restarts += 1

    def _await_ready(self, group: Sequence[Watched]) -> None:
        waiting, told = list(group), set()
        while waiting:
            for watched in list(waiting):
                code, part = watched.part.exit_code(), watched.part
                if code is not None:
                    raise BackendUnavailable(f"{part.name} ended at its start ({_how(code)}):\n{part.last_words()}")
                if part.answers():
                    part.settle()
                    watched.answered()
                    self.say(f"{part.name} answers")
                    waiting.remove(watched)
                elif watched.late():
                    raise BackendUnavailable(f"{part.name} does not answer at {part.url}:\n{part.last_words()}")
                elif part.name not in told and time.monotonic() - part.started > TELL_SECONDS:
                    told.add(part.name)
                    self.say(f"{part.name} runs, but is not ready yet ({part.url}); its log: {part.log_file}")
            self._pause(0.05 if waiting else 0)

    def _provision(self) -> subprocess.Popen[bytes]:
        file = self.plan.data_dir / "logs" / "provision.log"
        file.parent.mkdir(exist_ok=True)
        with file.open("wb") as log:
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
        """One look at every part, then sleep until there is a reason for the next."""
        now, changed = time.monotonic(), False
        for watched in self._watched:
            part = watched.part
            if watched.restart_at is not None:
                if now >= watched.restart_at:
                    self._relaunch(watched)
                    changed = True
            elif (code := part.exit_code()) is not None:
                part.sweep()
                pause = watched.next_pause()
                watched.restart_at, watched.ready = now + pause, False
                self.say(f"{part.name} ended ({_how(code)}); starting it again in {pause:g} s. Log: {part.log_file}")
                changed = True
            elif not watched.ready:
                if part.answers():
                    watched.answered()
                    self.say(f"{part.name} answers again")
                elif watched.late():
                    self.say(f"{part.name} does not come up within {part.start_seconds:g} s; ending it")
                    part.kill()
            elif watched.hangs():
                seconds = part.silent_seconds + part.hung_seconds
                self.say(f"{part.name} {part.silence} for {seconds:g} s; ending it")
                part.kill()
        for watched in self._watched:
            keep_small(watched.part.log_file)
        if changed or self._unwritten:
            self._rewrite_stack_file()
        self._pause(self._seconds_to_next_look())

    def _seconds_to_next_look(self) -> float:
        due = [w.restart_at - time.monotonic() for w in self._watched if w.restart_at is not None]
        due += [0.2 for w in self._watched if w.restart_at is None and not w.ready]
        due += [w.probe_at - time.monotonic() for w in self._watched if w.restart_at is None and w.ready]
        return max(0.0, min([HOUSEKEEPING_SECONDS, *due]))

    def _rewrite_stack_file(self) -> None:
        try:
            self._write_stack_file()
        except OSError as error:
            if not self._unwritten:
                self.say(f"stack.json stays as it was for now: {error}")
            self._unwritten = True
        else:
            self._unwritten = False

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
        """Have signals written as bytes into a pipe, on which `_pause` waits."""
        self._pipe = os.pipe()
        os.set_blocking(self._pipe[0], False)
        os.set_blocking(self._pipe[1], False)
        before = {number: signal.signal(number, _ignore) for number in (*_STOP_SIGNALS, signal.SIGCHLD)}
        if before[signal.SIGHUP] is signal.SIG_IGN:
            signal.signal(signal.SIGHUP, signal.SIG_IGN)  # started by nohup: outlive the terminal
        wakeup = signal.set_wakeup_fd(self._pipe[1], warn_on_full_buffer=False)
        try:
            yield
        finally:
            signal.set_wakeup_fd(wakeup)
            for number, handler in before.items():
                signal.signal(number, handler)
            for descriptor in self._pipe:
                os.close(descriptor)

    def _pause(self, seconds: float) -> None:
        """Sleep until a signal or for `seconds`.

        Raises:
            StopRequested: a stop signal came.
        """
        readable, _, _ = select.select([self._pipe[0]], [], [], seconds)
        if readable and any(number in _STOP_SIGNALS for number in os.read(self._pipe[0], 1024)):
            raise StopRequested


def _ignore(_: int, __: FrameType | None) -> None:
    """A handler must exist for the signal to reach the pipe."""


def _how(code: int) -> str:
    return f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
