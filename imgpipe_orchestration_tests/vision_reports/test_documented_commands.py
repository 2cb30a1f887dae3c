"""The contract's own commands, typed as they stand."""

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
from imgpipe_orchestration_tests.vision_reports.conftest import ORGANIZATION, Desk
from imgpipe_orchestration_tests.vision_reports.test_routes import DOCUMENTED

CREATE = "curl -X POST http://localhost:8000/cron-jobs -H 'Content-Type: application/json' -d " + shlex.quote(
    json.dumps({**DOCUMENTED, "enabled": True}, indent=2)
)

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


@pytest.mark.parametrize("how", ["flags", "variables"])
def test_the_scripts_five_values_come_as_flags_or_variables(
    desk: Desk, mine: dict[str, str], monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """`--external-api-get-url` and `EXTERNAL_API_GET_URL`, as the documents have them."""
    desk.seed(images=1)
    words = ["run"]
    for name, value in mine.items():
        if how == "flags":
            words += [f"--{name.replace('_', '-')}", value]
        else:
            monkeypatch.setenv(name.upper(), value)
    with desk.dagster():
        ran = CliRunner().invoke(vision_reports, words)
    assert ran.exit_code == 0, ran.output
    assert "success. Total 1, successful 1, failed 0." in ran.output
    assert [report["organization_id"] for report in desk.reports] == [ORGANIZATION]
