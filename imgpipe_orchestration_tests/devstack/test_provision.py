"""What `imgpipe up` prepares, and what it says when that fails."""

from __future__ import annotations

import subprocess
import sys

import pytest

from imgpipe_orchestration.settings import Settings

NOBODY = "127.0.0.1:9"


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("DATABASE_URL", f"postgresql://me:hidden@{NOBODY}/imgpipe"),
        ("S3_ENDPOINT", f"http://{NOBODY}"),
        ("MONGODB_URL", f"mongodb://me:hidden@{NOBODY}/news?serverSelectionTimeoutMS=500"),
    ],
)
def test_what_cannot_be_reached_is_named_by_its_setting_in_one_line(
    settings: Settings, variable: str, value: str
) -> None:
    command = [sys.executable, "-m", "imgpipe_orchestration.devstack.provision"]
    environ = {**settings.environment(), variable: value}
    ended = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 1
    (line,) = ended.stderr.splitlines()
    assert line.startswith(f"{variable}: ") and NOBODY.partition(":")[0] in line
    assert "hidden" not in line
