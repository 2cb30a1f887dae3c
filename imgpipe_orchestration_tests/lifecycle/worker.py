"""A run of `purge` as a process of its own, which kills itself before its n-th write: `python -m ... OWNER N`.

A write is a transaction that commits, or a request that deletes objects; settings come from the environment.
"""

from __future__ import annotations

import itertools
import os
import signal
import sys

import obstore
from sqlalchemy import event

from imgpipe_orchestration.lifecycle import work
from imgpipe_orchestration.services import Services
from imgpipe_orchestration.settings import load


def main(owner: str, last: int) -> None:
    services = Services(load())
    steps = itertools.count(1)

    def step(*_: object) -> None:
        if next(steps) >= last:
            os.kill(os.getpid(), signal.SIGKILL)

    event.listen(services.engine, "commit", step)
    delete = obstore.delete

    def counted(*arguments: object, **options: object) -> None:
        step()
        delete(*arguments, **options)  # type: ignore[arg-type]

    obstore.delete = counted
    work.run(services, owner)
    services.close()
    print("done")  # noqa: T201


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
