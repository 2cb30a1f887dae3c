"""A part under supervision: when it is next probed, and when it is started again."""

from __future__ import annotations

import time

from imgpipe_orchestration.devstack.process import Part

FIRST_PAUSE_SECONDS = 0.5
LONGEST_PAUSE_SECONDS = 30.0
"""Pause before a restart: doubles with each further death, up to this."""
STEADY_SECONDS = 60.0
"""After a part has lived this long, the next pause is the first one again."""
PROBE_SECONDS = 20.0
"""How often a part is probed; once it does not answer, every `PROBE_AGAIN_SECONDS`."""
PROBE_AGAIN_SECONDS = 5.0


class Watched:
    """A part and the supervisor's state of it."""

    def __init__(self, part: Part) -> None:
        self.part = part
        self.deaths = 0
        self.launched = 0.0
        self.restarts = 0
        self.restart_at: float | None = None
        self.ready = False
        self.probe_at = 0.0
        self.silent_since: float | None = None

    def answered(self) -> None:
        """Note that it has just answered."""
        self.ready, self.silent_since = True, None
        self.probe_at = time.monotonic() + PROBE_SECONDS

    def late(self) -> bool:
        """Whether it should have come up by now. PostgreSQL is not late while it says that it recovers."""
        return time.monotonic() - self.part.started > self.part.start_seconds and not self.part.works()

    def hangs(self) -> bool:
        """Probe it if a probe is due; True when it has not answered for its `hung_seconds`."""
        now = time.monotonic()
        if now < self.probe_at:
            return False
        if self.part.works():
            self.answered()
            return False
        self.silent_since = self.silent_since or now
        self.probe_at = time.monotonic() + PROBE_AGAIN_SECONDS
        return now - self.silent_since >= self.part.hung_seconds

    def next_pause(self) -> float:
        """Seconds to wait after the death that was just seen."""
        if time.monotonic() - self.launched > STEADY_SECONDS:
            self.deaths = 0
        pause = min(FIRST_PAUSE_SECONDS * 2.0 ** min(self.deaths, 10), LONGEST_PAUSE_SECONDS)  # a float ends at 2**1024
        self.deaths += 1
        return pause
