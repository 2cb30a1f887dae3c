"""Finds and ends processes of a stack whose supervisor died, by a variable in their environment.

On Linux the kernel ends the parts with their supervisor, but not what the parts have started (runs); on macOS it
ends none of them.
"""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import psutil

from imgpipe_orchestration.devstack.plan import MARKER

_GRACE_SECONDS = 2.0
_STOP_SECONDS = 10.0


def end_orphans(data_dir: Path) -> list[str]:
    """End what still runs for `data_dir`; call it only while holding its lock. Returns what had to be ended.

    First it waits _GRACE_SECONDS, in which PostgreSQL can shut down by itself.
    """
    left = [process for process in psutil.process_iter() if _belongs(process, data_dir)]
    left = _wait(left, _GRACE_SECONDS)
    names = [f"{_name(process)} ({process.pid})" for process in left]
    for number in (signal.SIGINT, signal.SIGKILL):
        for process in left:
            _signal(process, number)
        left = _wait(left, _STOP_SECONDS)
    return names


def _wait(processes: list[psutil.Process], seconds: float) -> list[psutil.Process]:
    """Those that still run after at most `seconds`."""
    deadline = time.monotonic() + seconds
    while (alive := [p for p in processes if _alive(p)]) and time.monotonic() < deadline:
        time.sleep(0.05)
    return alive


def _alive(process: psutil.Process) -> bool:
    """Running and not a zombie, which nobody may reap in a container."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _belongs(process: psutil.Process, data_dir: Path) -> bool:
    """By MARKER in its environment; for PostgreSQL, which overwrites that with its process title, by its folder."""
    if process.pid == os.getpid():
        return False
    try:
        if not _alive(process):
            return False
        if process.environ().get(MARKER) == str(data_dir):
            return True
        return str(data_dir / "postgres") in process.cmdline()
    except psutil.Error:
        return False


def _name(process: psutil.Process) -> str:
    try:
        return process.name()
    except psutil.Error:
        return "process"


def _signal(process: psutil.Process, number: signal.Signals) -> None:
    try:
        process.send_signal(number)
    except psutil.NoSuchProcess:
        return
