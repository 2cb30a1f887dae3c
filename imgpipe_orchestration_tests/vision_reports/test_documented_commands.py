"""The contract's own commands, typed as they stand."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from imgpipe_orchestration.cli.vision_reports import vision_reports
from imgpipe_orchestration_tests.gateway.live import live
from imgpipe_orchestration_tests.lacking import lacking
from imgpipe_orchestration_tests.vision_reports.conftest import KEY, ORGANIZATION, Desk

CREATE = r"""
curl -X POST http://localhost:8000/cron-jobs \
  -H "Content-Type: application/json" \
  -d '{
    "name": "Hourly Vision Analysis",
    "schedule": "0 * * * *",
    "external_api_get_url": "https://api.example.com/api/v1/documents/vision_analysis",
    "external_api_post_url": "https://api.example.com/api/v1/documents/vision_analysis/upload",
    "external_api_key": "your_jwt_token",
    "backend_api_url": "http://localhost:8000",
    "organization_id": "your_org_id",
    "enabled": true
  }'
"""

CURLS = """
curl http://localhost:8000/cron-jobs/550e8400-e29b-41d4-a716-446655440000
curl -X POST http://localhost:8000/cron-jobs/550e8400-e29b-41d4-a716-446655440000/activate
curl http://localhost:8000/cron-jobs/550e8400-e29b-41d4-a716-446655440000/executions
curl http://localhost:8000/cron-jobs
curl http://localhost:8000/cron-jobs/{job_id}
curl -X POST http://localhost:8000/cron-jobs/{job_id}/activate
curl -X POST http://localhost:8000/cron-jobs/{job_id}/deactivate
curl -X DELETE http://localhost:8000/cron-jobs/{job_id}
curl http://localhost:8000/cron-jobs/{job_id}/executions?limit=20
curl http://localhost:8000/cron-jobs?enabled_only=true
curl http://localhost:8000/cron-jobs/{job_id}/executions
curl -X GET http://localhost:8000/available_models
"""

SCRIPT = r"""
python3 cron_batch_processor.py \
  --external-api-get-url "https://api.example.com/api/v1/documents/vision_analysis" \
  --external-api-post-url "https://api.example.com/api/v1/documents/vision_analysis/upload" \
  --external-api-key "your_jwt_token" \
  --backend-api-url "http://localhost:8000" \
  --organization-id "your_org_id"
"""

EXPORTS = """
export EXTERNAL_API_GET_URL="https://api.example.com/api/v1/documents/vision_analysis"
export EXTERNAL_API_POST_URL="https://api.example.com/api/v1/documents/vision_analysis/upload"
export EXTERNAL_API_KEY="your_jwt_token"
export BACKEND_API_URL="http://localhost:8000"
export ORGANIZATION_ID="your_org_id"
"""

Shell = Callable[[str], dict[str, Any]]


@pytest.fixture
def shell(desk: Desk, tmp_path: Path) -> Iterator[Shell]:
    """Types a curl line; returns the JSON of an answer 200. curl's own configuration leads port 8000 to the gateway."""
    if shutil.which("curl") is None:
        lacking("curl", "apt-get install curl")
    with live(desk.settings) as url:
        where = url.removeprefix("http://")
        (tmp_path / ".curlrc").write_text(
            f'silent\nshow-error\nfail-with-body\nnoproxy = "*"\nconnect-to = "localhost:8000:{where}"\n'
        )
        environ = {"PATH": os.environ["PATH"], "CURL_HOME": str(tmp_path)}

        def typed(line: str) -> dict[str, Any]:
            ran = subprocess.run(
                ["bash", "-c", line], cwd=tmp_path, env=environ, capture_output=True, text=True, timeout=30, check=False
            )
            assert ran.returncode == 0, f"{line}: {ran.stderr} {ran.stdout}"
            answer: dict[str, Any] = json.loads(ran.stdout)
            return answer

        yield typed


def test_every_curl_line_is_answered(shell: Shell) -> None:
    for line in CURLS.strip().splitlines():
        created = shell(CREATE)
        assert set(created) == {"status", "job_id", "name", "schedule", "enabled"}
        answer = shell(re.sub(r"550e8400-[0-9a-f-]+|{job_id}", created["job_id"], line))
        assert answer.get("status", "success") == "success", line
        if "job_id" in answer:
            assert answer["job_id"] == created["job_id"], line
    left, enabled = shell("curl localhost:8000/cron-jobs"), shell("curl localhost:8000/cron-jobs?enabled_only=true")
    assert (left["total"], enabled["total"]) == (11, 10), "one was deleted, one deactivated"


@pytest.fixture
def mine(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """What a person puts in the place of each example; nothing of it is in the environment."""
    values = {
        "external_api_get_url": desk.standins.analyses_url,
        "external_api_post_url": f"{desk.standins.analyses_url}/upload",
        "external_api_key": KEY,
        "backend_api_url": desk.backend.url,
        "organization_id": ORGANIZATION,
    }
    for name in values:
        monkeypatch.delenv(name.upper(), raising=False)
    return values


def test_the_scripts_flags_are_those_of_the_command(desk: Desk, mine: dict[str, str]) -> None:
    desk.seed(images=1)
    flags = shlex.split(SCRIPT.replace("\\\n", ""))[2::2]
    assert len(flags) == 5
    words = [word for flag in flags for word in (flag, mine[flag.removeprefix("--").replace("-", "_")])]
    ran = CliRunner().invoke(vision_reports, ["run", *words])
    assert ran.exit_code == 0, ran.output
    assert "success. Total 1, successful 1, failed 0." in ran.output
    assert [report["organization_id"] for report in desk.reports] == [ORGANIZATION]


def test_the_variables_do_without_flags_and_file(
    desk: Desk, mine: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    desk.seed(images=1)
    names = re.findall(r"export (\w+)=", EXPORTS)
    assert len(names) == 5
    for name in names:
        monkeypatch.setenv(name, mine[name.lower()])
    ran = CliRunner().invoke(vision_reports, ["run"])
    assert ran.exit_code == 0, ran.output
    assert len(desk.reports) == 1
