"""Two gateways and two workers, each a process: what is accepted anywhere is done once, whoever is killed."""

import os
import signal
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from imgpipe_orchestration.devstack.demo import runner, scenario
from imgpipe_orchestration.devstack.demo.scenario import Result
from imgpipe_orchestration.operations.tidying import collect_garbage
from imgpipe_orchestration.storage.rows import transaction
from imgpipe_orchestration_tests.devstack.running import wait_for
from imgpipe_orchestration_tests.listings.conftest import photo
from imgpipe_orchestration_tests.scale.stack import LOGS, Machines, machines
from imgpipe_orchestration_tests.servers import Worker

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1500),
    pytest.mark.xdist_group("production"),  # not beside the other tests of many processes
]

LISTINGS = 40
HELD = "select count(*) from work_items where state = 'claimed' and owner = any(:runs)"
PAID = {"openai": ("responses", "images", "embeddings"), "google": ("annotate",), "flowise": ("prediction",)}


def rows(stack: Machines, query: str, **values: Any) -> list[Any]:
    with transaction(stack.services.engine) as connection:
        return list(connection.execute(text(query), values))


def number(stack: Machines, query: str, **values: Any) -> int:
    return int(rows(stack, query, **values)[0][0])


def upload_listings(stack: Machines, images: int) -> list[str]:
    """Uploads through both gateways; the paths that were handed out."""
    photos = [photo(1600, 1200, seed=seed) for seed in range(4)]

    def one(index: int) -> str:
        files = {"images": (f"{index}.jpg", photos[index % 4])}
        data = {"listing_title": f"Bike {index}"}
        answer = stack.request("POST", "/api/upload/listing_image", files=files, data=data)
        assert answer.status_code == 200, answer.text
        url: str = answer.json()["data"]["images"][0]["url"]
        return url

    with ThreadPoolExecutor(4) as pool:
        return list(pool.map(one, range(images)))


def test_a_worker_that_vanishes_loses_nothing_and_nothing_is_done_twice(
    open_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (runner, scenario):
        monkeypatch.setattr(module, "SECONDS", 1000)  # half of the workers is lost, and other tests run meanwhile
    with machines(open_folder, monkeypatch, workers=2, WORKER_INTERVAL="1") as stack:
        tell("everything is up")
        stack.stand_in("POST", "delays", {"openai.responses": 2, "openai.images": 3, "flowise": 0.3})
        urls = upload_listings(stack, LISTINGS)
        results: list[Result] = []
        feeding = threading.Thread(target=lambda: results.extend(runner.run(stack, runner.SCENARIOS, lambda _: None)))
        feeding.start()

        def in_the_middle() -> tuple[Worker, list[str]] | None:
            """A worker whose runs are at paid work, once something has been done."""
            done = number(stack, "select count(*) from work_attempts where outcome = 'done'")
            if done < 5 or not number(stack, "select count(*) from paid_calls where state = 'started'"):
                return None
            for worker in stack.workers:
                if holding(worker):
                    worker.send(signal.SIGSTOP)
                    if runs := holding(worker):  # still, and to the end
                        return worker, runs
                    worker.send(signal.SIGCONT)
            return None

        def holding(worker: Worker) -> list[str]:
            """The worker's runs, if any has taken paid work."""
            runs = stack.runs_on(worker)
            paid = f"{HELD} and queue in ('media', 'vision_batches', 'avatar_images')"
            return runs if number(stack, paid, runs=runs) else []

        worker, doomed = wait_for(in_the_middle, "a worker at paid work")
        worker.vanish()
        tell(f"a worker with {len(doomed)} runs has vanished")
        killed = time.time()
        feeding.join()
        took = {result.pipeline: round(result.seconds) for result in results}
        tell(f"seconds of the scenarios: {took}")

        assert {result.pipeline: result.failures for result in results if not result.ok} == {}
        done = "select count(*) from image_queue where status = 'processed'"
        wait_for(lambda: number(stack, done) == LISTINGS + 4, "the listings")
        unfinished = "select count(*) from work_items where state in ('waiting', 'claimed')"
        wait_for(lambda: number(stack, unfinished) == 0, "everything else")
        ends = {stack.status_of(run_id).value for run_id in doomed}
        assert "FAILURE" in ends, "monitoring noticed"
        assert ends <= {"FAILURE", "SUCCESS"}, "one may have ended between the look and the end"
        taken_over = number(
            stack, "select count(*) from work_attempts where outcome <> 'done' and owner = any(:runs)", runs=doomed
        )
        assert taken_over, "the dead worker held something"

        twice = rows(
            stack,
            # URLs are replaced anew where a report's sender commits only after they were, or dies and another sends it.
            "select queue, item_id from work_attempts where outcome = 'done' and queue <> 'media_urls' "
            "group by 1, 2 having count(*) > 1",
        )
        assert twice == []
        for index, url in enumerate(urls):
            answer = stack.http.get(stack.gateways[index % 2] + "/" + url.split("/", 3)[3], timeout=30)
            assert (answer.status_code, answer.headers["content-type"]) == (200, "image/webp")
        for found in collect_garbage(stack.services, act=False, grace_hours=0):
            assert found.rows > 0, found.name
            assert found.missing == 0, found
        assert sum(1 for _ in stack.services.listings_bucket.list()) == 2 * (LISTINGS + 4)
        bought_once(stack, killed)
        said = {entry.key.rsplit(".", 1)[-1] for entry in stack.services.objects.bucket(LOGS).list("dagster/storage/")}
        assert "err" in said, "what runs print is where every webserver can read it"
        tell(f"{len(doomed)} runs died with a worker, {taken_over} items were taken over, nothing lost, nothing twice")


def bought_once(stack: Machines, killed: float) -> None:
    """No paid call was made twice, but for what was under way when its buyer was killed; the journal shows that."""
    calls = [call for call in stack.stand_in("GET", "calls")["calls"] if call["provider"] in PAID]
    answered = [call for call in calls if call["status"] == 200]
    assert {call["provider"] for call in answered} == set(PAID)
    seen = Counter((call["provider"], call["operation"], call["input_hash"]) for call in answered)
    lost = number(stack, "select count(*) from paid_call_uses where outcome = 'lost'")
    bought = number(stack, "select count(*) from paid_call_uses where outcome = 'bought'")
    begun = number(stack, "select count(*) from paid_calls where state = 'started'")  # and nobody had to ask again
    kinds = Counter(operation for _, operation, _ in seen.elements())
    assert len(answered) <= bought + lost + begun, f"not every answer is accounted for: {kinds}"
    again = [key for key, times in seen.items() if times > 1]
    for provider, operation, hashed in again:
        first = min(call["at"] for call in answered if call["input_hash"] == hashed)
        assert killed - 60 < first <= killed, f"{provider} {operation} was bought twice without a reason"
    assert len(again) <= lost
    tell(f"{bought} paid answers, {lost} of them under way when their buyer was killed, {len(again)} bought again")


def tell(what: str) -> None:
    """For whoever runs `make test-scale`."""
    sys.stdout.write(f"\n{datetime.now():%H:%M:%S} {what} ({os.cpu_count()} cores)\n")
    sys.stdout.flush()
