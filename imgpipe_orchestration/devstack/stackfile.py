"""A running stack's files in its data folder: a lock, and `stack.json`, which describes the stack.

The lock, not `stack.json`, says whether a stack runs: the kernel releases it when the supervisor dies.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from shlex import quote
from typing import Any

from imgpipe_orchestration.errors import Conflict
from imgpipe_orchestration.settings import STACK_FILE

LOCK_FILE = "lock"
_LOCK_SECONDS = 1.0


@dataclass(frozen=True)
class RunningStack:
    """The content of `stack.json`."""

    data_dir: Path
    pid: int
    started_at: str
    environment: dict[str, str]
    parts: list[dict[str, Any]]
    """Per part: name, pid, url, log, restarts."""
    notes: list[str] = field(default_factory=list)
    """A line for each port that people would not expect."""


class StackLock:
    """Held by the one supervisor of a data folder."""

    def __init__(self, data_dir: Path) -> None:
        self._data_dir = data_dir
        self._descriptor: int | None = None

    def acquire(self) -> None:
        """Take the lock.

        Raises:
            Conflict: another stack runs on this data; the message names it.
        """
        descriptor = os.open(self._data_dir / LOCK_FILE, os.O_RDWR | os.O_CREAT, 0o600)
        deadline = time.monotonic() + _LOCK_SECONDS
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                # `is_running` holds the lock for microseconds.
                if time.monotonic() > deadline:
                    os.close(descriptor)
                    raise Conflict(_who_runs(self._data_dir)) from None
                time.sleep(0.05)
        self._descriptor = descriptor

    def release(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def is_running(data_dir: Path) -> bool:
    """Whether a supervisor lives on this data folder."""
    try:
        descriptor = os.open(data_dir / LOCK_FILE, os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    else:
        return False
    finally:
        os.close(descriptor)


def read(data_dir: Path) -> RunningStack | None:
    """The stack that runs on this data folder; None when there is none, or it has not written its file yet."""
    file = data_dir / STACK_FILE
    if not is_running(data_dir) or not file.is_file():
        return None
    written = json.loads(file.read_text())
    return RunningStack(data_dir, **written)


def write(data_dir: Path, content: dict[str, Any]) -> None:
    """Replace `stack.json` atomically; readable by our user only, because it contains keys."""
    unfinished = data_dir / f"{STACK_FILE}.new"
    descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        json.dump(content, file, indent=2)
    unfinished.replace(data_dir / STACK_FILE)


def remove(data_dir: Path) -> None:
    """Forget the stack of a data folder."""
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
