"""When a part that dies is started again."""

from __future__ import annotations

import os
import time
from pathlib import Path

from imgpipe_orchestration.devstack.services import StandIns
from imgpipe_orchestration.devstack.supervisor import LONGEST_PAUSE_SECONDS, Watched


def test_a_part_that_dies_for_days_is_started_again_each_time_after_the_longest_pause(tmp_path: Path) -> None:
    watched = Watched(StandIns(tmp_path, 1, environ=os.environ))
    watched.part.started = time.monotonic()
    pauses = [watched.died() for _ in range(3000)]
    assert pauses[0] < pauses[1] < pauses[2]
    assert pauses[-1] == max(pauses) == LONGEST_PAUSE_SECONDS
