"""Runs over the queue: what a run does, and what crashes, absences and second workers do to it."""

import io
import threading
from contextlib import closing

import pytest
from PIL import Image

from imgpipe_orchestration.devstack.s3 import S3
from imgpipe_orchestration.gateway.app import create_app
from imgpipe_orchestration.listings import steps, store
from imgpipe_orchestration.listings.runs import Drained, make_again, run
from imgpipe_orchestration.settings import Settings
from imgpipe_orchestration.wiring.services import Services
from imgpipe_orchestration_tests.client import Client
from imgpipe_orchestration_tests.devstack.running import wait_for
from imgpipe_orchestration_tests.imaging.corpus import pixels
from imgpipe_orchestration_tests.listings.conftest import drain, path_of, photo, queued, rows

UNSETTLED = "select count(*) from image_queue where status <> 'processed'"


def test_one_run_drains_what_is_due_in_batches(client: Client, services: Services) -> None:
    images = [image for n in range(5) for image in queued(client, *(photo(seed=n),) * 5)]
    done = drain(services, "run-1")
    assert (done.processed, done.outcome.retried, done.outcome.failed) == (25, {}, {})
    assert done.ended == "nothing more is due"
    assert rows(services, "select distinct status, retries, webp_height from image_queue") == [("processed", 0, 240)]
    for image in images[::6]:
        assert client.get(path_of(image)).headers["content-type"] == "image/webp"
    keys = sorted(found.key for found in services.listings_bucket.list())
    assert [key for key in keys if "/" not in key] == sorted(image["file_name"] for image in images)


def test_a_run_ends_with_its_time_budget_and_gives_the_rest_back(
    client: Client, services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    queued(client, *(photo(),) * 12)
    with monkeypatch.context() as budget:
        budget.setattr("imgpipe_orchestration.listings.runs.RUN_SECONDS", 0.001)
        done = drain(services, "run-1")
    assert done.processed < 12
    assert done.ended == "the time budget is used up"
    assert rows(services, "select count(*) from work_items where state = 'claimed'") == [(0,)]
    assert drain(services, "run-2").processed == 12 - done.processed


def test_with_the_object_store_stopped_while_processing_images_are_retried_and_then_done(
    own_s3: tuple[S3, Settings],
) -> None:
    server, settings = own_s3
    with Client(create_app(settings)) as client, closing(Services(settings)) as services:
        images = queued(client, *(photo(),) * 15) + queued(client, *(photo(),) * 15)
        server.kill()
        shown = client.get(path_of(images[0]))
        assert (shown.status_code, shown.headers["content-type"]) == (503, "image/webp")
        assert pixels(shown.content).shape[:2] == (240, 320)
        run(services, "run-1", result := Drained())
        assert (result.processed, result.outcome.failed) == (0, {})
        assert result.ended == "The object store cannot be reached."
        assert len(result.outcome.retried) <= 20, "the run went on although nothing could work"
        assert ("retry", 0) in rows(services, "select status, retries from image_queue")
        server.start()
        server.wait_until_ready()
        shown = client.get(path_of(images[0]))
        assert (shown.status_code, shown.headers["cache-control"]) == (200, "no-store")
        services.claims.hasten(store.QUEUE)
        run(services, "run-2", again := Drained())
        assert again.processed == 30
        assert rows(services, UNSETTLED) == [(0,)]
        assert client.get(path_of(images[0])).headers["content-type"] == "image/webp"


def test_what_fails_is_retried_three_times_then_failed_and_can_be_requeued(
    client: Client, services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    from imgpipe_orchestration.errors import Retryable

    def broken(file: steps.File, name: str, bucket: object) -> None:
        raise Retryable("the place is closed")

    image = queued(client, photo())[0]
    monkeypatch.setattr(steps, "store", broken)
    seen = []
    for number in range(3):
        drain(services, f"run-{number}")
        seen += rows(services, "select status, retries, error from image_queue")
        services.claims.hasten(store.QUEUE)
    assert [tuple(row) for row in seen] == [
        ("retry", 1, "the place is closed"),
        ("retry", 2, "the place is closed"),
        ("failed", 3, "the place is closed"),
    ]
    assert not drain(services, "run-3").outcome.failed
    answer = client.get(path_of(image))
    assert (answer.status_code, "the place is closed" in answer.json()["detail"]) == (404, True)
    (letter,) = services.claims.failures(store.QUEUE)

    monkeypatch.undo()
    assert services.claims.requeue(store.QUEUE, [letter.item_id]) == [letter.item_id]
    assert rows(services, "select status, retries, error from image_queue") == [("pending", 0, None)]
    assert client.get(path_of(image)).headers["cache-control"] == "no-store"
    assert drain(services, "run-4").processed == 1
    assert client.get(path_of(image)).headers["content-type"] == "image/webp"


def test_giant_animations_of_one_uploader_do_not_hold_up_the_photograph_of_another(
    client: Client, services: Services
) -> None:
    frames = [Image.effect_noise((480, 360), 90 + number) for number in range(20)]
    out = io.BytesIO()
    frames[0].save(out, "GIF", save_all=True, append_images=frames[1:], duration=100)
    giant = out.getvalue()
    for _ in range(16):
        queued(client, giant)
    with services.engine.begin() as connection:  # development takes uploads without a user
        connection.exec_driver_sql("update work_items set tenant = 'giant'")
    run = threading.Thread(target=lambda: drain(services, "run-1"))
    run.start()
    try:
        claimed = "select count(*) from work_items where state = 'claimed'"
        wait_for(lambda: rows(services, claimed)[0][0] > 0, "the animations to be begun", 60)
        (good,) = queued(client, photo())
        done = "select status from image_queue where file_name = :name"
        wait_for(lambda: rows(services, done, name=good["file_name"]) == [("processed",)], "the photograph", 120)
        assert rows(services, UNSETTLED)[0][0] > 0, "the photograph waited for the animations"
    finally:
        run.join(300)


def test_a_finished_day_can_be_made_again_while_its_images_stay_served(client: Client, services: Services) -> None:
    image = queued(client, photo(1000, 1000))[0]
    drain(services, "run-1")
    before = client.get(path_of(image))
    day = rows(services, "select to_char(created_at, 'YYYY-MM-DD') from image_queue")[0][0]
    with services.engine.begin() as connection:
        assert store.again(connection, services.claims, "2020-01-01") == 0
        assert store.again(connection, services.claims, day) == 1
    assert client.get(path_of(image)).content == before.content
    (original,) = services.listings_bucket.list("originals/")
    another = photo(320, 320).ljust(original.size, b"\0")  # as if the steps made something else of it
    services.listings_bucket.put(original.key, another, content_type="image/jpeg")
    again = make_again(services, "run-2", day, done := Drained())
    assert (again, done.processed) == (0, 1), "it waited already"
    after = client.get(path_of(image))
    assert pixels(after.content).shape[:2] == (320, 320)
    assert after.headers["etag"] != before.headers["etag"]


@pytest.mark.parametrize("stale", [None, 1000])
def test_an_original_that_the_object_store_does_not_have_or_not_whole_is_tried_again(
    client: Client, services: Services, stale: int | None
) -> None:
    (image,) = queued(client, photo())
    (original,) = services.listings_bucket.list("originals/")
    if stale is None:
        services.listings_bucket.delete(original.key)
    else:
        services.listings_bucket.put(original.key, photo()[:stale], content_type="image/jpeg")
    assert drain(services, "run-1").processed == 0
    assert rows(services, "select status, retries from image_queue") == [("retry", 1)]
    services.listings_bucket.put(original.key, photo(), content_type="image/jpeg")
    services.claims.hasten(store.QUEUE)
    assert drain(services, "run-2").processed == 1
    assert client.get(path_of(image)).headers["content-type"] == "image/webp"
