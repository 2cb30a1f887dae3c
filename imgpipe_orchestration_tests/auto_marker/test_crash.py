"""kill -9 between find and write: a run in a process of its own, stopped on the wire at its first write."""

import os
import signal
import subprocess
import sys
from urllib.parse import urlsplit

from imgpipe_orchestration.auto_marker import runs
from imgpipe_orchestration.auto_marker.model import JOB
from imgpipe_orchestration.auto_marker.runs import due
from imgpipe_orchestration.settings import Settings
from imgpipe_orchestration.storage import job_instances
from imgpipe_orchestration.storage.job_instances import JobStatus
from imgpipe_orchestration.wiring.services import Services
from imgpipe_orchestration_tests.auto_marker.conftest import marked, seed
from imgpipe_orchestration_tests.cable import Cable
from imgpipe_orchestration_tests.devstack.running import wait_for

RUN = """
from imgpipe_orchestration.auto_marker import runs
from imgpipe_orchestration.wiring.services import Services
from imgpipe_orchestration.settings import load
services = Services(load())
runs.mark_round(services, runs.begin_round(services)[0], "killed-run", print)
"""


def is_write(data: bytes) -> bool:
    return b"update\0" in data and b"news_document" in data


def test_a_run_killed_between_find_and_write_marks_nothing_and_the_next_one_everything(
    settings: Settings, services: Services
) -> None:
    seed(services, "c1", 5)
    asked, _ = job_instances.create_or_join(services.engine, JOB, customer_id="c1")
    port = urlsplit(settings.mongodb_url).port
    with Cable(port or 0, is_write, at_once=True) as cable:
        through_cable = settings.mongodb_url.replace(f":{port}/", f":{cable.port}/")
        guarded = settings.model_copy(update={"mongodb_url": through_cable, "lease_seconds": 2.0})
        run = subprocess.Popen([sys.executable, "-c", RUN], env={**os.environ, **guarded.environment()})
        wait_for(cable.silence, "the first write")
        assert job_instances.get(services.engine, asked.id).status == JobStatus.RUNNING
        run.send_signal(signal.SIGKILL)
        run.wait()
    assert marked(services, "c1") == 0
    wait_for(lambda: due(services) is True, "the job to be due once the lease ran out")
    runs.mark_round(services, runs.begin_round(services)[0], "next-run", lambda _: None)
    assert marked(services, "c1") == 5
    done = job_instances.get(services.engine, asked.id)
    assert (done.status, done.run_id, done.result["images_marked"]) == (JobStatus.COMPLETED, "next-run", 5)
