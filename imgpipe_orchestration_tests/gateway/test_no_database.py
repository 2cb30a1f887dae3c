"""A gateway that has no database: what it says."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from imgpipe_orchestration.devstack.ports import free_port


def test_one_that_is_told_of_none_ends_with_a_line(tmp_path: Path) -> None:
    environ = {name: value for name, value in os.environ.items() if name in ("PATH", "HOME")}
    environ["GATEWAY_PORT"] = environ["FLASK_PORT"] = str(free_port())
    gateway = [sys.executable, "-m", "imgpipe_orchestration.gateway"]
    done = subprocess.run(gateway, cwd=tmp_path, env=environ, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("imgpipe: DATABASE_URL is not set")
