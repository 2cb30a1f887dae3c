"""A run as a process of its own, which kills itself before its n-th write: `python -m ... purge|media OWNER N`.

A write is a transaction that commits, or a request that deletes objects; settings come from the environment.
"""

import itertools
import os
import signal
import sys

import obstore
from sqlalchemy import event

from imgpipe_orchestration.listings.drain import drain
from imgpipe_orchestration.operations import deletion
from imgpipe_orchestration.settings import load
from imgpipe_orchestration.wiring.services import Services
from imgpipe_orchestration_tests.media.worker import run, today


def main(what: str, owner: str, last: int) -> None:
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
    if what == "purge":
        deletion.run(services, owner)
    else:
        run(services, owner, today())
        drain(services, owner)
    services.close()
    print("done")  # noqa: T201


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
