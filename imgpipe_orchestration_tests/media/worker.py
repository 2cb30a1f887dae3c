"""A media worker as a process of its own, for tests that kill it: the stages of one run, settings from the environment.

`python -m imgpipe_orchestration_tests.media.worker OWNER`
"""

from __future__ import annotations

import sys
from datetime import UTC, datetime

from imgpipe_orchestration.media import stages
from imgpipe_orchestration.services import Services
from imgpipe_orchestration.settings import load


def main(owner: str) -> None:
    backends = Services(load())
    stages.retrieve_stage(backends, owner, datetime.now(UTC).date().isoformat())
    stages.analyse_stage(backends, owner)
    stages.resize_stage(backends, owner)
    stages.callback_stage(backends, owner)
    stages.urls_stage(backends, owner)
    backends.close()


if __name__ == "__main__":
    main(sys.argv[1])
