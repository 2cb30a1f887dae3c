"""A running stack's files in its data folder: a lock, and `stack.json`, which describes the stack.

The lock, not `stack.json`, says whether a stack runs: the kernel releases it when the supervisor dies.
"""

import fcntl
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from shlex import quote
from typing import IO, Any

from imgpipe_orchestration.errors import Conflict
from imgpipe_orchestration.settings import STACK_FILE

_LOCK_FILE = "lock"


@dataclass(frozen=True)
class RunningStack:
    """The content of `stack.json`."""

    pid: int
    started_at: str
    environment: dict[str, str]
    parts: list[dict[str, Any]]
    """Per part: name, pid, url, log, restarts."""
    notes: list[str] = field(default_factory=list)
    """A line for each port that people would not expect."""


@contextmanager
def locked(data_dir: Path) -> Iterator[None]:
    """Hold the lock, as the one supervisor of a data folder does.

    Raises:
        Conflict: another stack runs on this data; the message names it.
    """
    with (data_dir / _LOCK_FILE).open("a") as file:
        deadline = time.monotonic() + 1  # `is_running` holds it for microseconds
        while not _lock(file, fcntl.LOCK_EX):
            if time.monotonic() > deadline:
                raise Conflict(_who_runs(data_dir))
            time.sleep(0.05)
        yield


def is_running(data_dir: Path) -> bool:
    """Whether a supervisor lives on this data folder."""
    try:
        with (data_dir / _LOCK_FILE).open() as file:
            return not _lock(file, fcntl.LOCK_SH)
    except FileNotFoundError:
        return False


def _lock(file: IO[str], kind: int) -> bool:
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def read(data_dir: Path) -> RunningStack | None:
    """The stack that runs on this data folder; None when there is none, or it has not written its file yet."""
    file = data_dir / STACK_FILE
    if not is_running(data_dir) or not file.is_file():
        return None
    return RunningStack(**json.loads(file.read_text()))


def write(data_dir: Path, content: dict[str, Any]) -> None:
    """Replace `stack.json` atomically; readable by our user only, because it contains keys."""
    unfinished = data_dir / f"{STACK_FILE}.new"
    unfinished.touch(0o600)
    unfinished.write_text(json.dumps(content, indent=2))
    unfinished.replace(data_dir / STACK_FILE)


def remove(data_dir: Path) -> None:
    (data_dir / STACK_FILE).unlink(missing_ok=True)


def _who_runs(data_dir: Path) -> str:
    stack = read(data_dir)
    if stack is None:
        return f"A stack is starting or stopping on {data_dir}."
    return (
        f"A stack runs on {data_dir} already: process {stack.pid}, since {stack.started_at}, "
        f"gateway {stack.environment['GATEWAY_URL']}. Stop it with `imgpipe down --data {quote(str(data_dir))}`, "
        "or use another folder (--data)."
    )
