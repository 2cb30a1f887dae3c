"""Runs of media and listings as a process of its own, which kills itself before its n-th commit: `... OWNER N`."""

from __future__ import annotations

import itertools
import os
import signal
import sys

from sqlalchemy import event

from imgpipe_orchestration.listings.drain import drain
from imgpipe_orchestration.services import Services
from imgpipe_orchestration.settings import load
from imgpipe_orchestration_tests.media.worker import run, today


def main(owner: str, last: int) -> None:
    services = Services(load())
    steps = itertools.count(1)

    def step(*_: object) -> None:
        if next(steps) >= last:
            os.kill(os.getpid(), signal.SIGKILL)

    event.listen(services.engine, "commit", step)
    run(services, owner, today())
    drain(services, owner)
    services.close()
    print("done")  # noqa: T201


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
