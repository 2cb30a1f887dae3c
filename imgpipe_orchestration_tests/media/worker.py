"""What a run of media does, without Dagster around it; also as a process of its own, for tests that kill it.

`python -m imgpipe_orchestration_tests.media.worker OWNER`, settings from the environment.
"""

from __future__ import annotations

import sys
from datetime import UTC, datetime

from imgpipe_orchestration.media import stages
from imgpipe_orchestration.services import Services
from imgpipe_orchestration.settings import load


def today() -> str:
    """The day of what is uploaded now."""
    return datetime.now(UTC).date().isoformat()


def run(backends: Services, owner: str, day: str) -> dict[str, stages.Stage]:
    return {
        "retrieve": stages.retrieve_stage(backends, owner, day),
        "analyse": stages.analyse_stage(backends, owner),
        "resize": stages.resize_stage(backends, owner),
        "callback": stages.callback_stage(backends, owner),
        "urls": stages.urls_stage(backends, owner),
    }


def main(owner: str) -> None:
    backends = Services(load())
    run(backends, owner, today())
    backends.close()


if __name__ == "__main__":
    main(sys.argv[1])
