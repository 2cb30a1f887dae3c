"""The tag that names the process of a Dagster run, for the launcher and for run monitoring."""

import json
import socket

import psutil

PROCESS_TAG = "dagster/forked_process"
"""Tag of a run that says where its process is, as JSON {host, pid, started}, `started` in seconds after the boot. With
Dagster's own prefix it does not clutter the UI's list of runs."""


def describe_process(pid: int) -> str:
    """The value of PROCESS_TAG for a process of this machine."""
    try:
        started = since_boot(psutil.Process(pid))
    except psutil.NoSuchProcess:
        started = 0.0
    return json.dumps({"host": socket.gethostname(), "pid": pid, "started": started})


def since_boot(process: psutil.Process) -> float:
    """Seconds from the machine's boot (known to the second) to the process's start. By wall clock the start time would
    change whenever somebody sets the clock, and every running run would count as dead."""
    return process.create_time() - psutil.boot_time()
