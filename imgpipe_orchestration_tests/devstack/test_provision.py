"""What `imgpipe up` prepares, and what it says when that fails."""

import subprocess
import sys
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import Engine, text

from imgpipe_orchestration.devstack.provision import first_day
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


def test_partitions_begin_the_day_before_the_oldest_upload_of_any_kind(engine: Engine) -> None:
    """Dagster shows every earlier day without images as missing."""
    yesterday = (datetime.now(UTC).date() - timedelta(days=1)).isoformat()
    pending = text("insert into pending_images (user_id, image_path, created_at) values (1, '/x', :at)")
    with engine.begin() as connection:
        assert first_day(connection) == yesterday
        for wrong in ("-infinity", "0001-01-01", "2099-01-01", "infinity"):
            connection.execute(pending, {"at": wrong})
        assert first_day(connection) == yesterday
        row = "insert into media_files (main_api_id, user_id, data_type, kind, image_path, upload_day)"
        connection.execute(text(f"{row} values (1, 1, 'profile', 'profile', '/x', '2026-03-01')"))
        assert first_day(connection) == "2026-02-28"
        connection.execute(pending, {"at": "2026-01-04 00:30+01"})
        assert first_day(connection) == "2026-01-02", "by UTC"
