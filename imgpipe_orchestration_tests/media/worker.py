"""What a run of media does, without Dagster around it; also as a process of its own, for tests that kill it.

`python -m imgpipe_orchestration_tests.media.worker OWNER`, settings from the environment.
"""

import sys
from datetime import UTC, datetime

from imgpipe_orchestration.media.model import REPLACE_URLS, Step
from imgpipe_orchestration.media.runs import take_through
from imgpipe_orchestration.media.stages import Stage
from imgpipe_orchestration.settings import load
from imgpipe_orchestration.wiring.services import Services

STAGES = (*Step, REPLACE_URLS)


def today() -> str:
    """The day of what is uploaded now."""
    return datetime.now(UTC).date().isoformat()


def run(services: Services, owner: str, day: str, *chosen: str) -> dict[str, Stage]:
    """The chosen stages, or all."""
    return take_through(services, owner, day, chosen or STAGES)


def main(owner: str) -> None:
    services = Services(load())
    run(services, owner, today())
    services.close()


if __name__ == "__main__":
    main(sys.argv[1])
