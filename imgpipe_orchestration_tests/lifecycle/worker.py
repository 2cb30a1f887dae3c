"""Runs as processes of their own, each of which kills itself before its n-th write.

A write is a transaction that commits, or a request that deletes objects. `python -m ...` reads lines `purge|media OWNER
N`, with settings from the environment, and answers each with the exit code of a fork: all of them import only once.
"""

import itertools
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import obstore
from sqlalchemy import event

from imgpipe_orchestration.listings.runs import Drained, drain
from imgpipe_orchestration.operations import deletion
from imgpipe_orchestration.settings import Settings, load
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
        drain(services, owner, Drained())
    services.close()


@contextmanager
def killing_itself(settings: Settings) -> Iterator[Callable[[str, str, int], bool]]:
    """Whether a run (`purge` or `media`, its owner, n) was killed; one that was not came to its end."""
    command = [sys.executable, "-m", __name__]
    environment = {**os.environ, **settings.environment()}
    with subprocess.Popen(
        command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
    ) as process:
        assert process.stdin and process.stdout

        def killed(what: str, owner: str, last: int) -> bool:
            print(what, owner, last, file=process.stdin)
            code = int(process.stdout.readline())
            assert code in {0, -signal.SIGKILL}, code
            return code != 0

        try:
            yield killed
        finally:
            process.kill()


if __name__ == "__main__":
    for line in sys.stdin:
        if (child := os.fork()) == 0:
            what, owner, last = line.split()
            main(what, owner, int(last))
            break
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)  # noqa: T201
