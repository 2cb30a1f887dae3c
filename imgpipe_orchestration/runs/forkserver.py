"""`python -m imgpipe_orchestration.runs.forkserver FD [--ends-runs]`: forks a process for each run that is asked for.

Imports once, then waits on the socket FD for lines of JSON: the words of a `dagster` command to run in a child. The
answer is the child's pid. It must stay single-threaded and open no connection, for a fork copies neither well.
It ends when the other side of the socket closes; its children go on, or with `--ends-runs` are interrupted (on Linux).
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import json
import multiprocessing.util
import os
import shutil
import signal
import socket
import sys
import traceback
from types import FrameType
from typing import NoReturn

from imgpipe_orchestration.partners.openai_rehearsal import rehearse

PRELOAD = (
    "imgpipe_orchestration.definitions",
    "dagster._cli.api",
    "dagster_postgres",
    "psycopg",
    "psycopg2",
    "obstore.store",
    "imgpipe_orchestration.partners.openai_transport",
    "httpcore2",
    "pydantic",
    "requests",
    "PIL.Image",
    "pebble",
    "imgpipe_orchestration.media.stages",
)
"""What nearly every run imports. Not numpy and cv2: they start threads as they are imported."""

LOGS_IN_S3 = ("dagster_aws.s3.compute_log_manager",)
"""What every run imports beside that on a worker of several machines (deploy/dagster.yaml)."""

PRELOAD_VARIABLE = "IMGPIPE_PRELOAD_RUNS"
"""Set in the environment of the process that will launch runs (the daemon): the forkserver then imports at once, and
not when the first run waits for it."""

_PR_SET_PDEATHSIG = 1


def main(descriptor: int, *, ends_runs: bool = False) -> None:
    signal.signal(signal.SIGCHLD, _collect)
    # Its end is decided by the socket: a Ctrl-C that reaches the whole group must not take away the runs' parent first.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    for module in (*PRELOAD, *(LOGS_IN_S3 if ends_runs else ())):
        importlib.import_module(module)
    rehearse()
    gc.collect()
    libc = ctypes.CDLL(None) if ends_runs and sys.platform == "linux" else None
    gc.freeze()  # what is loaded stays shared with the children: the collector will not write to its pages
    with socket.socket(fileno=descriptor) as connection, connection.makefile("rwb") as lines:
        for line in lines:
            pid = os.fork()
            if pid == 0:
                os.close(descriptor)  # held open in a child it would hide this process's death from the launcher
                if libc is not None:
                    libc.prctl(_PR_SET_PDEATHSIG, int(signal.SIGINT))
                _run(json.loads(line))
            lines.write(b"%d\n" % pid)
            lines.flush()


def _run(words: list[str]) -> NoReturn:
    """In the child: be the command, then end without unwinding what belongs to the parent."""
    from dagster._cli import cli

    code = 1
    try:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        _log_as_settings_say()
        cli.main(args=words, prog_name="dagster", standalone_mode=False)
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        _tell_the_collector()
        # Image workers are reached through a folder that goes when Python exits, which this process does not do.
        shutil.rmtree(multiprocessing.util.get_temp_dir(), ignore_errors=True)
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _tell_the_collector() -> None:
    """Spans go out in the background; a process that ends without unwinding takes what is left with it."""
    from imgpipe_orchestration import tracing

    try:
        tracing.flush()
    except Exception:
        traceback.print_exc()


def _log_as_settings_say() -> None:
    """Lines of a run look like those of the gateway; they say whose run, item and tenant they are about."""
    from imgpipe_orchestration import logs
    from imgpipe_orchestration.errors import SettingsError
    from imgpipe_orchestration.settings import load

    try:
        logs.configure_as_set(load())
    except SettingsError as error:
        logs.configure()
        # Unless it is LOG_FILE, the run's first step will fail of it, and say so in the UI.
        logs.logger(__name__).error(error.public)


def _collect(_: int, __: FrameType | None) -> None:
    """Collect children that ended, so that their pids stop looking alive."""
    while True:
        try:
            pid, _status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return


if __name__ == "__main__":
    main(int(sys.argv[1]), ends_runs="--ends-runs" in sys.argv[2:])
