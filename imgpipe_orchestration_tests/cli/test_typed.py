"""Commands in what we print, as a user can type them."""

from __future__ import annotations

import subprocess
from pathlib import Path

from imgpipe_orchestration_tests.devstack.running import imgpipe


def test_a_printed_command_runs_where_it_was_printed(tmp_path: Path) -> None:
    told = imgpipe("status", "--data", str(tmp_path)).stderr
    command = told.partition("`")[2].partition("`")[0].replace(" up ", " down ")
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 3, done.stderr
