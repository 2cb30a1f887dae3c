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


def run(services: Services, owner: str, day: str) -> dict[str, stages.Stage]:
    return {
        "retrieve": stages.retrieve_stage(services, owner, day),
        "analyse": stages.analyse_stage(services, owner),
        "resize": stages.resize_stage(services, owner),
        "callback": stages.callback_stage(services, owner),
        "urls": stages.urls_stage(services, owner),
    }


def main(owner: str) -> None:
    services = Services(load())
    run(services, owner, today())
    services.close()


if __name__ == "__main__":
    main(sys.argv[1])
