"""What the whole stack costs while there is nothing to do: CPU seconds an hour, and memory.

Starts a stack of its own, lets it settle, then adds up the CPU time of all its processes over a while. Processes that
end in between would be missed; an idle stack starts none.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import time
from collections import defaultdict
from pathlib import Path

import psutil
from running import bar, running_stack

from imgpipe_orchestration.devstack import stackfile
from imgpipe_orchestration.settings import Settings

LIMIT_CPU_SECONDS_AN_HOUR = 150


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--settle", type=float, default=45, help="seconds before the measurement")
    parser.add_argument("--seconds", type=float, default=120, help="seconds measured")
    arguments = parser.parse_args()
    ours = {name.upper() for name in Settings.model_fields}
    began = time.monotonic()
    # Without any setting of ours: a stack as everybody gets it.
    with running_stack({name: value for name, value in os.environ.items() if name not in ours}) as stack:
        print(f"started in {time.monotonic() - began:.1f} s")
        running = stackfile.read(Path(stack.environment["IMGPIPE_DATA_DIR"]))
        assert running is not None
        time.sleep(arguments.settle)
        before = snapshot(running)
        time.sleep(arguments.seconds)
        after = snapshot(running)
    hourly: defaultdict[str, float] = defaultdict(float)
    memory: defaultdict[str, float] = defaultdict(float)
    for pid, (name, cpu, unique) in after.items():
        hourly[name] += (cpu - before[pid][1] if pid in before else cpu) * 3600 / arguments.seconds
        memory[name] += unique / 2**20
    for name in sorted(hourly, key=hourly.__getitem__, reverse=True):
        print(f"{name:24} {hourly[name]:7.1f} CPU s an hour {memory[name]:7.0f} MB of its own")
    total = sum(hourly.values())
    print(f"{'together':24} {total:7.1f} CPU s an hour {sum(memory.values()):7.0f} MB of its own")
    bar("idle_cpu_seconds_per_hour", total, LIMIT_CPU_SECONDS_AN_HOUR)


def snapshot(running: stackfile.RunningStack) -> dict[int, tuple[str, float, int]]:
    """Per process: the part it belongs to, its CPU seconds so far, its unique memory in bytes."""
    found = {}
    for name, pid in [("supervisor", running.pid), *((part["name"], part["pid"]) for part in running.parts)]:
        process = psutil.Process(pid)
        # The supervisor's children are the parts, counted by themselves.
        family = [process] if name == "supervisor" else [process, *process.children(recursive=True)]
        for member in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                times = member.cpu_times()
                found[member.pid] = (name, times.user + times.system, member.memory_full_info().uss)
    return found


if __name__ == "__main__":
    main()
