"""What loading the definitions costs over loading Dagster itself: every run's start pays it.

Fresh interpreters, asked in turn; CPU time of the child, so that the machine's other work does not count.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys

from running import bar

LIMIT = 1.3


def cpu_seconds(statement: str) -> float:
    """CPU time, user and system, of a fresh interpreter that runs `statement`."""
    before = os.times()
    subprocess.run([sys.executable, "-W", "ignore", "-c", statement], check=True)
    after = os.times()
    return after.children_user + after.children_system - before.children_user - before.children_system


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    rounds = parser.parse_args().rounds
    statements = ("import dagster", "import imgpipe_orchestration.definitions")
    for statement in statements:
        cpu_seconds(statement)  # writes the byte code and fills the page cache
    seconds: dict[str, list[float]] = {statement: [] for statement in statements}
    for _ in range(rounds):
        for statement in statements:
            seconds[statement].append(cpu_seconds(statement))
    bare, ours = (statistics.median(seconds[statement]) for statement in statements)
    print(f"import dagster: {bare:.2f} CPU s; with our definitions: {ours:.2f} CPU s; medians of {rounds}")
    bar("import_definitions_over_dagster", ours / bare, LIMIT)


if __name__ == "__main__":
    main()
