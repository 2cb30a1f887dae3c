"""`python -m imgpipe_orchestration.dagster_side.forkserver FD [--ends-runs]`: forks a process for each requested run.

It imports everything once, then reads lines of JSON from the socket FD: the arguments of a `dagster` command to run in
a child; for another interpreter, with its path and `-m dagster` in front. It answers with the child's pid, or with a
negative errno. It must stay single-threaded and open no connections, because neither survives a fork. It ends when the
other side of the socket closes; its children go on, or are interrupted with `--ends-runs` (on Linux).
"""

import contextlib
import gc
import importlib
import io
import json
import multiprocessing.util
import os
import runpy
import shutil
import signal
import socket
import sys
import tempfile
import traceback
from typing import NoReturn

from imgpipe_orchestration.dagster_side.parent_death import die_with_parent
from imgpipe_orchestration.imaging import workshop
from imgpipe_orchestration.telemetry import tracing

PRELOAD = (
    "imgpipe_orchestration.definitions",
    "dagster_postgres",
    "psycopg",
    "psycopg2",
    "obstore.store",
    "openai",
    "openai.resources.embeddings",
    "openai.resources.moderations",
    "openai.resources.responses",
    "imgpipe_orchestration.partners.openai_sdk",
    "httpcore2",
    "pydantic",
    "requests",
    "PIL.Image",
    "pebble",
    "imgpipe_orchestration.imaging.measuring",
    "imgpipe_orchestration.media.runs",
)
"""What nearly every run imports."""


def main(descriptor: int, *, ends_runs: bool = False) -> None:
    # Only the socket ends this process: a Ctrl-C for the whole process group must not end the runs' parent before them.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    for module in PRELOAD:
        importlib.import_module(module)
    with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):
        _dagster(["api", "execute_run", "--help"])  # imports what the command does
    gc.collect()
    gc.freeze()  # keeps memory shared with the children, because the garbage collector no longer writes to its pages
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel reaps ended runs: none keeps a pid that seems alive
    with socket.socket(fileno=descriptor) as connection, connection.makefile("rwb") as lines:
        for line in lines:
            try:
                pid = os.fork()
            except OSError as error:  # the machine is short of memory or processes; the other runs are to go on
                pid = -(error.errno or 1)
            if pid == 0:
                os.close(descriptor)  # open in a child, it would hide the death of this process from the launcher
                if ends_runs:
                    die_with_parent(signal.SIGINT)
                _run(json.loads(line))
            lines.write(b"%d\n" % pid)
            lines.flush()


def _dagster(words: list[str]) -> None:
    """What `python -m dagster` with these words does."""
    sys.argv = ["dagster", *words]
    runpy.run_module("dagster", run_name="__main__", alter_sys=True)


def _run(words: list[str]) -> NoReturn:
    """In the child: run the command, then exit without the clean-up of what belongs to the parent."""
    code = 1
    try:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        workshop.volunteer(workshop.RUN)
        if words[0] != "api":
            os.execv(words[0], words)  # noqa: S606  # what Dagster says of the code location
        # What the run leaves among the temporary files goes with it: Dagster leaves two folders for logs.
        tempfile.tempdir = multiprocessing.util.get_temp_dir()
        _dagster(words)
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        try:
            tracing.flush()  # spans are otherwise sent in the background and at exit
        except Exception:
            traceback.print_exc()
        # The run's temporary files and its image workers' sockets; Python's own clean-up is skipped by `os._exit`.
        shutil.rmtree(multiprocessing.util.get_temp_dir(), ignore_errors=True)
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    main(int(sys.argv[1]), ends_runs="--ends-runs" in sys.argv[2:])
