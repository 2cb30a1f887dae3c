"""What goes away between two steps: nothing half accepted, nothing lost, nothing twice."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from typing import Any

import pytest

from imgpipe_orchestration.devstack.postgres import Postgres
from imgpipe_orchestration.devstack.s3 import S3
from imgpipe_orchestration.gateway.app import create_app
from imgpipe_orchestration.listings import uploads
from imgpipe_orchestration.listings.runs import Drained
from imgpipe_orchestration.settings import Settings
from imgpipe_orchestration.storage.objects import Bucket
from imgpipe_orchestration.wiring.services import Services
from imgpipe_orchestration_tests.client import Client
from imgpipe_orchestration_tests.devstack.running import wait_for
from imgpipe_orchestration_tests.listings.conftest import JOB, Form, database_away, drain, path_of, photo, queued, rows

THREE = [("a.jpg", photo(seed=1)), ("b.jpg", photo(seed=2)), ("c.jpg", photo(seed=3))]
KEY = {"Idempotency-Key": "once"}


def test_the_object_store_dies_between_two_originals_of_an_upload(
    own_s3: tuple[S3, Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    server, settings = own_s3
    put, kept = Bucket.put, threading.Semaphore(1)

    def dying(bucket: Bucket, *arguments: Any, **named: Any) -> None:
        if not kept.acquire(blocking=False):
            server.kill()
        put(bucket, *arguments, **named)

    with Client(create_app(settings)) as client, closing(Services(settings)) as services:
        monkeypatch.setattr(Bucket, "put", dying)
        assert Form("Cut", THREE).send(client, **KEY).status_code == 503
        assert rows(services, "select count(*) from image_queue") == [(0,)]
        monkeypatch.undo()
        server.start()
        server.wait_until_ready()
        assert Form("Cut", THREE).send(client, **KEY).json()["data"]["image_count"] == 3
        assert drain(services, "run-1").processed == 3


def test_the_database_goes_away_after_the_originals_are_kept(
    client: Client,
    services: Services,
    settings: Settings,
    postgres_server: Postgres,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    keep = uploads._keep_originals
    with ExitStack() as absence:

        def keep_and_lose(*arguments: Any) -> None:
            keep(*arguments)
            absence.enter_context(database_away(settings, postgres_server))

        monkeypatch.setattr(uploads, "_keep_originals", keep_and_lose)
        assert Form("Cut", THREE).send(client, **KEY).status_code == 503
    monkeypatch.undo()
    assert rows(services, "select count(*) from image_queue") == [(0,)]
    assert rows(services, "select count(*) from work_items") == [(0,)]
    again = Form("Cut", THREE).send(client, **KEY)
    assert again.json()["data"]["image_count"] == 3
    assert Form("Cut", THREE).send(client, **KEY).json() == again.json()
    assert rows(services, "select count(*) from image_queue") == [(3,)]


def test_a_worker_is_killed_after_the_webp_is_written_and_before_its_row(settings: Settings) -> None:
    settings = settings.model_copy(update={"lease_seconds": 6.0})
    with Client(create_app(settings)) as client, closing(Services(settings)) as services:
        image = queued(client, photo())[0]
        killed = subprocess.run(
            [sys.executable, "-c", DIES_BEFORE_THE_ROW],
            check=False,
            env={**os.environ, **settings.environment()},
            timeout=60,
        )
        assert killed.returncode == -signal.SIGKILL
        assert services.listings_bucket.head(image["file_name"]) is not None
        assert client.get(path_of(image)).headers["cache-control"] == "no-store", "the row does not know of it"
        due = "select count(*) from work_items where state = 'claimed' and due_at > now()"
        wait_for(lambda: rows(services, due) == [(0,)], "the lease to run out")
        assert drain(services, "second").processed == 1
        assert client.get(path_of(image)).headers["cache-control"].startswith("public")
        outcomes = "select outcome, count(*) from work_attempts group by outcome order by outcome"
        assert rows(services, outcomes) == [("done", 1), ("lost", 1)]


DIES_BEFORE_THE_ROW = """
import os, signal
from imgpipe_orchestration.listings import store
from imgpipe_orchestration.listings.runs import Drained, run
from imgpipe_orchestration.wiring.services import Services
from imgpipe_orchestration.settings import load

if __name__ == "__main__":
    store.rendered = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)
    run(Services(load()), "killed", Drained())
"""


@pytest.mark.slow
def test_a_job_that_is_stopped_under_way_ends_with_its_batches_and_goes_on_when_started(
    client: Client, services: Services
) -> None:
    queued(client, *(photo(900, 700),) * 40)
    queued(client, *(photo(900, 700, seed=2),) * 40)
    body = {"id": "process-image-queue", "type": "process_images", "payload": {"batch_size": 500}}
    assert client.post("/api/jobs", json=body).status_code == 200
    ended: list[Drained] = []
    run = threading.Thread(target=lambda: ended.append(drain(services, "run-1")))
    run.start()
    done = "select count(*) from image_queue where status = 'processed'"
    wait_for(lambda: rows(services, done)[0][0] >= 3, "the first images")
    assert client.delete(JOB).status_code == 200
    run.join(120)
    assert ended[0].ended == "the job was stopped"
    assert 3 <= ended[0].processed < 80
    assert rows(services, "select count(*) from work_items where state = 'claimed'") == [(0,)]
    queued(client, photo(seed=3))
    assert client.post("/api/jobs", json=body).status_code == 200
    assert drain(services, "run-2").processed == 81 - ended[0].processed


@pytest.mark.parametrize(("requests", "statuses"), [([0] * 6, [200] * 6), (range(4), [200, 422, 422, 422])])
def test_requests_under_one_key_that_meet_are_one_and_others_refused(
    client: Client, services: Services, requests: Sequence[int], statuses: list[int]
) -> None:
    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(lambda n: Form(f"Race {n}", [("a.jpg", photo(seed=n))]).send(client, **KEY), requests))
    assert sorted(answer.status_code for answer in answers) == statuses
    assert len({answer.text for answer in answers if answer.status_code == 200}) == 1
    assert rows(services, "select count(*) from image_queue") == [(1,)]
    assert len(list(services.listings_bucket.list("originals/"))) == 1
