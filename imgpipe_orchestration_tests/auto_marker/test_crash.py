"""kill -9 between find and write: a run in a process of its own, stopped on the wire at its first write."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest

from imgpipe_orchestration.auto_marker import steps
from imgpipe_orchestration.auto_marker.due import due
from imgpipe_orchestration.auto_marker.model import JOB
from imgpipe_orchestration.services import Services
from imgpipe_orchestration.settings import Settings
from imgpipe_orchestration.storage import job_instances
from imgpipe_orchestration.storage.job_instances import JobStatus
from imgpipe_orchestration_tests.auto_marker.conftest import marked, seed
from imgpipe_orchestration_tests.devstack.running import wait_for

RUN = """
from imgpipe_orchestration.auto_marker import steps
from imgpipe_orchestration.services import Services
from imgpipe_orchestration.settings import load
services = Services(load())
list(steps.carry_out(services, steps.plan(services, scheduled=True), "killed-run", batch_size=50))
"""


class Gate:
    """A proxy before MongoDB that lets everything through until a write to `news_document` comes by; then nothing."""

    def __init__(self, port: int) -> None:
        self._behind = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._open: list[socket.socket] = [self._listener]
        self.port = int(self._listener.getsockname()[1])
        self.write_seen = threading.Event()
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(("127.0.0.1", self._behind))
                self._open += [client, server]
                threading.Thread(target=self._forward, args=(client, server, True), daemon=True).start()
                threading.Thread(target=self._forward, args=(server, client, False), daemon=True).start()

    def _forward(self, source: socket.socket, target: socket.socket, guarded: bool) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                if guarded and b"update\0" in data and b"news_document" in data:
                    self.write_seen.set()
                    return
                target.sendall(data)

    def close(self) -> None:
        for each in self._open:
            each.close()


@pytest.fixture
def gate(settings: Settings) -> Iterator[Gate]:
    port = urlsplit(settings.mongodb_url).port
    assert port is not None
    gate = Gate(port)
    yield gate
    gate.close()


def test_a_run_killed_between_find_and_write_marks_nothing_and_the_next_one_everything(
    settings: Settings, services: Services, gate: Gate
) -> None:
    seed(services, "c1", 5)
    asked, _ = job_instances.create_or_join(services.engine, JOB, customer_id="c1")
    through_gate = settings.mongodb_url.replace(f":{urlsplit(settings.mongodb_url).port}/", f":{gate.port}/")
    guarded = settings.model_copy(update={"mongodb_url": through_gate, "lease_seconds": 2.0})
    run = subprocess.Popen([sys.executable, "-c", RUN], env={**os.environ, **guarded.environment()})
    assert gate.write_seen.wait(60)
    assert job_instances.get(services.engine, asked.id).status is JobStatus.RUNNING
    run.send_signal(signal.SIGKILL)
    run.wait()
    assert marked(services, "c1") == 0
    wait_for(lambda: due(services) == ["c1"], "the job to be due once the lease ran out", 20)
    list(steps.carry_out(services, steps.plan(services, scheduled=True), "next-run", batch_size=50))
    assert marked(services, "c1") == 5
    done = job_instances.get(services.engine, asked.id)
    assert (done.status, done.run_id, done.result["images_marked"]) == (JobStatus.COMPLETED, "next-run", 5)
