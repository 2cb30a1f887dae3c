"""Our analysis backend, over HTTP, and who gets our key."""

import io
import signal
import threading
from collections import Counter
from collections.abc import Iterator
from uuid import UUID

import pytest
from PIL import Image
from sqlalchemy import text

from imgpipe_orchestration.errors import Forbidden, NotWhole, Permanent
from imgpipe_orchestration.operations import review
from imgpipe_orchestration.operations.kinds import subject_of
from imgpipe_orchestration.partners.analysis_backend import (
    AnalysisBackend,
    BatchOrder,
    BatchState,
    ImageFile,
    ImageOrder,
    Missing,
)
from imgpipe_orchestration.storage.rows import transaction
from imgpipe_orchestration.vision_reports import backend_routes, batch_work, batches, lifecycle
from imgpipe_orchestration.vision_reports.steps import backend_at
from imgpipe_orchestration.wiring.services import Services
from imgpipe_orchestration_tests.conftest import S3Access
from imgpipe_orchestration_tests.devstack.running import wait_for
from imgpipe_orchestration_tests.gateway.live import live
from imgpipe_orchestration_tests.partners.wire import half_of, serving
from imgpipe_orchestration_tests.vision_reports.backend import backend_serving
from imgpipe_orchestration_tests.vision_reports.conftest import ORGANIZATION, Desk, data_of


def test_our_key_goes_to_the_backend_that_the_operator_configured_and_to_no_other(desk: Desk) -> None:
    configured = {"backend_api_key": "our-key", "backend_api_url": f"{desk.backend.url}/somewhere"}
    services = Services(desk.settings.model_copy(update=configured))
    with backend_serving() as other:
        for url in (f"{desk.backend.url}/", other.url):
            backend = backend_at(services, url)
            assert backend.status("a batch").state is BatchState.COMPLETED
            backend.close()
        ((_, told, _),) = desk.backend.server.requests
        ((_, not_told, _),) = other.server.requests
    services.close()
    assert told["authorization"] == "Bearer our-key"
    assert "authorization" not in not_told


def test_in_production_a_jobs_backend_is_no_way_into_the_private_network(desk: Desk) -> None:
    keys = dict.fromkeys(("media_api_key", "main_api_key", "user_jwt_secret", "secret_key"), "a-real-secret")
    production = {**keys, "imgpipe_env": "production", "admin_api_key": "boss", "allowed_private_hosts": ""}
    services = Services(desk.settings.model_copy(update={**production, "backend_api_url": desk.backend.url}))
    with backend_serving() as inside:
        refused = backend_at(services, inside.url)
        with pytest.raises(Forbidden, match="127"):
            refused.status("a batch")
        refused.close()
        assert not inside.server.requests
        named_by_an_operator = backend_at(services, inside.url, trusted=True)
        assert named_by_an_operator.status("a batch").state is BatchState.COMPLETED
        named_by_an_operator.close()
    operators = backend_at(services, desk.backend.url)
    assert operators.status("a batch").state is BatchState.COMPLETED
    operators.close()
    services.close()


@pytest.fixture
def backend(desk: Desk) -> Iterator[AnalysisBackend]:
    with live(desk.settings) as url:
        found = backend_at(desk.services, url)
        yield found
        found.close()


def picture(name: str = "hull.jpg", colour: str = "navy") -> ImageFile:
    file = io.BytesIO()
    Image.new("RGB", (640, 400), colour).save(file, "JPEG")
    return ImageFile(name, file.getvalue(), "image/jpeg")


def order(*image_ids: str, organization: str = ORGANIZATION) -> BatchOrder:
    return BatchOrder(
        organization_id=organization,
        user_query="Is there rust?",
        images=tuple(ImageOrder(image_id, "Port side <b>hull</b>") for image_id in image_ids),
        missing=(Missing("gone.jpg", "there is nothing there"),),
        notes=("one note",),
    )


def test_images_go_in_and_a_report_comes_out(backend: AnalysisBackend, desk: Desk) -> None:
    images = [backend.upload(picture(colour=colour), ORGANIZATION) for colour in ("navy", "teal")]
    batch = backend.start(order(*images), "order-1")
    assert backend.start(order(*images), "order-1") == batch, "the same order twice is one batch"
    assert backend.status(batch).state is BatchState.QUEUED
    with pytest.raises(Permanent):
        backend.report(batch)

    assert len(batch_work.work_on_all(desk.services, "a run").done) == 1

    status = backend.status(batch)
    assert (status.state, status.done, status.total) == (BatchState.COMPLETED, 2, 2)
    html = backend.report(batch).decode()
    assert "Port side &lt;b&gt;hull&lt;/b&gt;" in html
    data = data_of(html)
    assert (len(data["images"]), data["missing"][0]["name"], data["notes"]) == (2, "gone.jpg", ["one note"])
    assert len(desk.standins.calls("openai", "responses")) == 2


def test_an_organization_cannot_use_anothers_image_or_find_its_batch_by_reference(backend: AnalysisBackend) -> None:
    mine = backend.upload(picture(), ORGANIZATION)
    theirs = backend.upload(picture(), "somebody-else")
    with pytest.raises(Permanent):
        backend.start(order(theirs), "order-1")
    assert backend.start(order(mine), "order-1") != backend.start(
        order(theirs, organization="somebody-else"), "order-1"
    )


def test_an_image_that_retention_took_is_to_be_uploaded_again_and_one_of_a_batch_stays(
    backend: AnalysisBackend, desk: Desk
) -> None:
    unused, used = (backend.upload(picture(), ORGANIZATION) for _ in range(2))
    backend.start(order(used), "order-1")
    desk.sql("update vision_uploads set created_at = now() - interval '40 days'")
    assert lifecycle.tidy(desk.services, 30) == 1
    assert [used in stored.key for stored in desk.services.vision_bucket.list()] == [True]
    with pytest.raises(Permanent, match=r"upload it first|HTTP 404"):
        backend.start(order(unused), "order-2")


def test_an_answer_is_bought_once_and_an_image_the_model_refuses_is_listed(
    backend: AnalysisBackend, desk: Desk
) -> None:
    images = [backend.upload(picture(colour=colour), ORGANIZATION) for colour in ("navy", "teal", "olive")]
    desk.standins.fault("openai", "content_policy", operation="responses", count=1)
    batch = backend.start(order(*images), "order-1")
    batch_work.work_on_all(desk.services, "a run")
    data = data_of(backend.report(batch).decode())
    assert len(data["images"]) == 2
    assert "refused" in data["missing"][1]["reason"]

    again = backend.start(order(*images), "order-2")
    batch_work.work_on_all(desk.services, "another run")
    assert backend.status(again).state is BatchState.COMPLETED
    assert len(desk.standins.calls("openai", "responses")) == 4, "only the refused image is asked about again"


def test_a_held_finding_waits_for_a_person_and_a_rejected_one_is_left_out(backend: AnalysisBackend, desk: Desk) -> None:
    low = {"moderation": "hold", "moderation_thresholds": '{"violence": 0.0001}'}
    desk.services.settings = desk.services.settings.model_copy(update=low)
    batch = backend.start(
        order(*(backend.upload(picture(colour=colour), ORGANIZATION) for colour in ("navy", "white"))), "order-1"
    )
    batch_work.work_on_all(desk.services, "a run")
    assert backend.status(batch).state is BatchState.QUEUED
    with transaction(desk.services.engine) as rows:
        held = review.waiting(rows, limit=50)
        query = "select f ->> 'title' from vision_batch_images, jsonb_array_elements(analysis -> 'findings') f"
        titles = Counter(rows.scalars(text(query)))
    assert [one.kind for one in held] == ["findings"] * titles.total()
    left_out = str(subject_of("findings").content(desk.services, held[0].item)).partition("\n")[0]
    review.decide(desk.services, subject_of("findings"), held[0].item, approve=False, why="", who="eve")
    with transaction(desk.services.engine) as rows:
        others = review.waiting(rows, limit=50)
    for one in others:
        review.decide(desk.services, subject_of("findings"), one.item, approve=True, why="", who="eve")
    desk.hurry()
    batch_work.work_on_all(desk.services, "another run")
    data = data_of(backend.report(batch).decode())
    assert {one["title"] for image in data["images"] for one in image["findings"]} == set(titles) - {left_out}
    assert f"Findings left out after a review: {titles[left_out]}." in data["notes"]
    assert len(desk.standins.calls("openai", "responses")) == 2
    assert len(desk.standins.calls("openai", "moderations")) == len(titles), "each text once"


def test_what_the_store_gives_a_part_of_is_waited_for(backend: AnalysisBackend, desk: Desk, s3: S3Access) -> None:
    batch = backend.start(order(backend.upload(picture(), ORGANIZATION)), "order-1")

    def run_over_halves(folder: str) -> BatchState:
        with serving(half_of(f"/{folder}/", s3.endpoint)) as store:
            services = Services(desk.settings.model_copy(update={"s3_endpoint": store.url}))
            desk.hurry()
            batch_work.work_on_all(services, f"a run over halves of {folder}")
            if folder == "reports":
                with pytest.raises(NotWhole):
                    backend_routes.batch_report(UUID(batch), services)
            services.close()
        return backend.status(batch).state

    assert run_over_halves("images") is BatchState.QUEUED
    assert run_over_halves("views") is BatchState.QUEUED
    assert run_over_halves("reports") is BatchState.COMPLETED
    assert backend.report(batch).endswith(b"</html>")
    assert len(desk.standins.calls("openai", "responses")) == 1


def test_a_batch_whose_images_wait_for_quota_does_not_fail_over_one_that_is_lost(
    backend: AnalysisBackend, desk: Desk
) -> None:
    lost, good = (backend.upload(picture(colour=colour), ORGANIZATION) for colour in ("navy", "teal"))
    batch = backend.start(order(lost, good), "order-1")
    desk.services.vision_bucket.discard([o.key for o in desk.services.vision_bucket.list() if lost in o.key])
    desk.standins.fault("openai", "insufficient_quota", count=None)

    def run() -> BatchState:
        desk.hurry()
        batch_work.work_on_all(desk.services, "a run")
        return backend.status(batch).state

    tries = batches.QUEUE.max_attempts
    assert {run() for _ in range(tries)} == {BatchState.QUEUED}
    desk.standins.admin("DELETE", "faults")
    desk.sql("delete from spending_pauses")
    assert [run() for _ in range(tries)] == [BatchState.QUEUED] * (tries - 1) + [BatchState.COMPLETED]
    assert len(data_of(backend.report(batch).decode())["missing"]) == 2


def test_an_interrupted_run_looks_at_no_further_images_and_the_next_goes_on(
    backend: AnalysisBackend, desk: Desk
) -> None:
    images = [backend.upload(picture(colour=f"#{6 * n:02x}{250 - 6 * n:02x}00"), ORGANIZATION) for n in range(40)]
    batches_ordered = [backend.start(order(*images[n : n + 10]), f"order-{n}") for n in range(0, 40, 10)]
    desk.standins.admin("POST", "delays", {"openai": 3})

    def interrupt() -> None:
        wait_for(lambda: desk.standins.calls("openai"), "the first image")
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    interrupting = threading.Thread(target=interrupt)
    interrupting.start()
    with pytest.raises(KeyboardInterrupt):
        try:
            batch_work.work_on_all(desk.services, "a run")
        finally:
            interrupting.join()  # a signal that came later would end pytest
    assert len(desk.standins.calls("openai", "responses")) < 30
    desk.standins.admin("POST", "delays", {"openai": 0})
    desk.hurry()
    batch_work.work_on_all(desk.services, "another run")
    assert {backend.status(batch).state for batch in batches_ordered} == {BatchState.COMPLETED}
    assert len(desk.standins.calls("openai", "responses")) == 40
