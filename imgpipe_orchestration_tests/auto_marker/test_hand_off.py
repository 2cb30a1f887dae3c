"""Downstream, for real: a second code location beside ours, under one daemon."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import dagster as dg
import pytest

from imgpipe_orchestration.auto_marker.model import JOB
from imgpipe_orchestration.devstack.postgres import Postgres
from imgpipe_orchestration.services import Services
from imgpipe_orchestration.settings import Settings
from imgpipe_orchestration.storage import job_instances
from imgpipe_orchestration_tests.auto_marker.conftest import marked, seed
from imgpipe_orchestration_tests.dagster_side.instances import configure
from imgpipe_orchestration_tests.devstack.running import wait_for

DOCUMENT = Path(__file__).parents[2] / "docs" / "auto_marker.md"

WORKSPACE = """
load_from:
  - python_module: {module_name: imgpipe_orchestration.definitions, location_name: imgpipe}
  - python_file: {relative_path: voice.py, location_name: voice}
"""


@contextmanager
def daemon(folder: Path, storage: str, settings: Settings) -> Iterator[dg.DagsterInstance]:
    """A Dagster of its own over both code locations."""
    (folder / "voice.py").write_text(DOCUMENT.read_text().split("```python\n")[1].split("```")[0])
    (folder / "workspace.yaml").write_text(WORKSPACE)
    configure(folder, storage)
    environ = {**os.environ, **settings.environment(), "DAGSTER_HOME": str(folder)}
    command = [sys.executable, "-m", "dagster._daemon", "run", "-w", "workspace.yaml"]
    with dg.DagsterInstance.from_config(str(folder)) as instance:
        process = subprocess.Popen(command, cwd=folder, env=environ, start_new_session=True)
        try:
            yield instance
        finally:
            process.terminate()
            process.wait(60)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # its code servers, which may outlive it


@pytest.mark.slow
@pytest.mark.timeout(400)  # a daemon, two code servers and two runs, each a new process
def test_a_customer_that_got_images_starts_a_run_in_another_code_location(
    services: Services, settings: Settings, postgres_server: Postgres, tmp_path: Path
) -> None:
    seed(services, "nobody", 1, image=5)
    with daemon(tmp_path, postgres_server.ensure_database("dagster_hand_off"), settings) as instance:
        news = services.documents.collection("news_document")

        def heard() -> set[str]:
            # What is marked before the listener's first look is not news to it.
            if marked(services, "a") == news.count_documents({"customer_id": "a"}):
                seed(services, "a", 1)
                job_instances.create_or_join(services.engine, JOB, customer_id="a")
            return instance.get_materialized_partitions(dg.AssetKey("voice"))

        spoken = wait_for(heard, "the voice generator to be told", 300, every=1)
    assert spoken == {"a"}
