"""Which of our processes Linux ends first where memory runs out: what they did not finish is tried again.

Else it takes the largest one, which may be a database, the gateway or Dagster.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

RUN, IMAGE_WORKER = 500, 1000
"""Added to the thousandths of memory in use by which the kernel chooses (proc(5), oom_score_adj). A run outlives its
image workers, of which only one image suffers."""


def volunteer(score: int) -> None:
    """Have the kernel end this process, and what it starts from now on, before those with a lower score."""
    with contextlib.suppress(OSError):  # there is no such file on macOS
        file = Path("/proc/self/oom_score_adj")
        file.write_text(str(max(score, int(file.read_text()))))
