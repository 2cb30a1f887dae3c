"""A main API and AI providers that refuse, lie or forget: no image is lost, and only what was a lie is missing."""

import json
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler

import pytest

from imgpipe_orchestration.media import intake, runs, store
from imgpipe_orchestration.media.reports import complete
from imgpipe_orchestration.media.runs import SHARE
from imgpipe_orchestration_tests.conftest import StandInAccess
from imgpipe_orchestration_tests.media import worker
from imgpipe_orchestration_tests.media.conftest import Gateway, picture
from imgpipe_orchestration_tests.media.test_pipeline import make_due
from imgpipe_orchestration_tests.media.test_uploads import LOGO
from imgpipe_orchestration_tests.partners.wire import Server, answering, pass_on, reply, serving


class MainApi:
    """Answers what it was told to, and writes down what it was asked."""

    def __init__(self) -> None:
        self.server: Server
        self.answer: tuple[int, object] = (200, {})
        self.file: tuple[int, str, bytes] = (404, "text/html", b"")
        """Status, type and bytes of every temp file."""
        self.asked: list[str] = []
        self.reports: list[tuple[str, bytes]] = []
        """Idempotency-Key and body of every report."""
        self.seconds = 0.0
        """How long it takes over a report."""

    @property
    def url(self) -> str:
        return self.server.url

    def behave(self, handler: BaseHTTPRequestHandler, number: int) -> None:
        path, headers, body = self.server.requests[number]
        self.asked.append(f"{handler.command} {path}")
        if handler.command == "GET":
            status, kind, data = self.file
            where = {"Location": "/login"} if status == 302 else {}
            return reply(handler, data, status, Content_Type=kind, **where)
        if handler.command == "POST":
            self.reports.append((headers["idempotency-key"], body))
            time.sleep(self.seconds)
        status, said = self.answer
        return reply(handler, json.dumps(said).encode(), status)


@pytest.fixture
def main_api() -> Iterator[MainApi]:
    api = MainApi()
    with serving(api.behave) as api.server:
        yield api


@pytest.fixture
def gateway(make_gateway: Callable[..., Gateway], main_api: MainApi) -> Gateway:
    """A gateway that reports to it."""
    return make_gateway(main_api_url=main_api.url)


def callback_of(gateway: Gateway) -> tuple[str, str, str]:
    (row,) = gateway.rows("""
        select c.update_callback, f.status, w.state from processing_checklist c
        join media_files f on f.id = c.media_id join work_items w on w.queue = 'media' and w.item_id = f.id
    """)
    return row[0], row[1], row[2]


WAITS, GIVEN_UP = ("pending", "processing", "waiting"), ("failed", "failed", "failed")
ANSWERS: dict[str, tuple[int, object, tuple[str, str, str]]] = {
    "a list": (200, [1, 2, 3], WAITS),
    "no success": (200, {"success": False, "error": "the database is away"}, WAITS),
    "36 MB": (200, "more than anybody reads " * 1_500_000, WAITS),
    "a redirect": (302, {"detail": "no"}, WAITS),
    "a refused key": (401, {"detail": "no"}, WAITS),
    "not wanted any more": (404, {}, GIVEN_UP),
}


@pytest.mark.parametrize("answer", ANSWERS)
def test_only_success_is_an_acknowledgement_and_only_404_the_end(
    gateway: Gateway, main_api: MainApi, answer: str
) -> None:
    status, body, becomes = ANSWERS[answer]
    gateway.upload(1, profile_image=picture())
    main_api.answer = (status, body)
    gateway.run_due()
    assert callback_of(gateway) == becomes
    assert main_api.asked == ["POST /api/media/complete/1"], "no redirect is followed and nothing is cleaned up"


def test_no_visitor_waits_for_the_main_api(gateway: Gateway, main_api: MainApi) -> None:
    gateway.upload(1, profile_image=picture())
    intake.take_in(gateway.services)
    (row,) = gateway.rows("select id, image_path from media_files")
    assert gateway.get(f"/serve/{row.id}").content == picture()
    gateway.services.media_bucket.discard([row.image_path[1:]])  # as where the main API has taken the upload
    shown = gateway.get(f"/serve/{row.id}")
    assert (shown.status_code, shown.headers["Content-Type"]) == (200, "image/svg+xml")
    assert main_api.asked == []


def test_an_upload_whose_name_has_no_extension_is_kept_under_a_key_of_the_usual_form(gateway: Gateway) -> None:
    path = "temp_images/profiles/1-profile-789"
    gateway.services.media_bucket.put(path, picture(), content_type="image/jpeg")
    gateway.rows("insert into pending_images (user_id, image_path) values (1, :path) returning id", path=f"/{path}")
    gateway.run_due()
    (row,) = gateway.rows("select id, bulk_path from media_files")
    assert row.bulk_path == f"bulk/{worker.today()}/{row.id}.bin"


def test_a_main_api_that_takes_its_time_does_not_hold_a_run_for_longer_than_its_budget(
    gateway: Gateway, main_api: MainApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What nobody reported yet is no failure: the next run reports it, and takes on what was uploaded meanwhile."""
    services, beyond = gateway.services, 3
    for number in range(SHARE + beyond):
        gateway.upload(1, profile_image=picture(40, 30, seed=number))
    worker.run(services, "run-1", worker.today(), *worker.STAGES[:3])
    main_api.answer, main_api.seconds = (200, {"success": True}), 4.0
    monkeypatch.setattr(runs, "RUN_SECONDS", 3.0)
    done = worker.run(services, "run-1", worker.today(), "update_callback", "replace_urls")
    reported = len(done["update_callback"].outcome.done)
    assert 0 < reported <= SHARE, "on a busy machine not all that may begin at once do so before the run's end"
    left = "select failures, losses from work_items where queue = 'media' and state = 'waiting'"
    assert gateway.rows(left) == [(0, 0)] * (SHARE + beyond - reported)
    main_api.seconds = 0
    monkeypatch.setattr(runs, "RUN_SECONDS", 60.0)
    worker.run(services, "run-2", worker.today(), "update_callback")
    assert len(main_api.reports) == SHARE + beyond


def test_reports_share_an_idempotency_key_while_they_say_the_same(
    make_gateway: Callable[..., Gateway], main_api: MainApi, standins: StandInAccess
) -> None:
    gateway = make_gateway(main_api_url=main_api.url, **standins.seeing)
    standins.fault("google", "unauthorized", count=None)
    gateway.upload(1, profile_image=picture())
    main_api.answer = (200, {})
    gateway.run_due()
    make_due(gateway, "media")
    main_api.answer = (200, {"success": True})
    gateway.run_due("run-2")
    standins.admin("DELETE", "faults")
    make_due(gateway, "media_healing")
    gateway.run_due("run-3")
    first, again, *later = main_api.reports  # a slow run also tells again what was acknowledged and not stored
    assert first == again
    ((key, body),) = set(later) - {first}
    assert (key != first[0], body != first[1]) == (True, True)


def test_a_report_has_the_verdict_also_of_a_slow_provider(
    make_gateway: Callable[..., Gateway], main_api: MainApi, standins: StandInAccess
) -> None:
    standins.admin("POST", "delays", {"openai.moderations": 4})
    gateway = make_gateway(main_api_url=main_api.url, **standins.seeing)
    gateway.finish(1, profile_image=picture(40, 30))
    ((_, body),) = main_api.reports
    assert json.loads(body)["moderation"]["state"] == "clear"


def test_a_main_api_that_acknowledges_and_forgets_is_told_again_and_waited_for(
    gateway: Gateway, main_api: MainApi
) -> None:
    gateway.upload(1, profile_image=picture())
    main_api.answer = (200, {"success": True})
    gateway.run_due()
    assert callback_of(gateway) == ("completed", "completed", "done")
    (row,) = gateway.rows("select state, error from work_items where queue = 'media_urls'")
    assert row.state == "waiting"
    assert "has not stored it yet" in row.error
    assert len(main_api.reports) == 1
    make_due(gateway, "media_urls")
    gateway.run_due("run-2")
    first, second = main_api.reports
    assert first == second, "told again, and under the same key"
    complete(gateway.services, 1, {"media_id": "1"})  # at last
    make_due(gateway, "media_urls")
    gateway.run_due("run-3")
    assert gateway.rows("select status from pending_images") == [("complete",)]
    assert len(main_api.reports) == 2


_WAITS = [
    (401, "application/json", b"{}"),
    (302, "text/html", b""),
    (200, "text/html; charset=utf-8", b"<!DOCTYPE html><title>Back in five minutes</title>"),
    (200, "image/jpeg", b""),
]


@pytest.mark.parametrize(("status", "kind", "data"), _WAITS)
def test_an_upload_that_the_main_api_does_not_give_now_waits_and_is_not_cleaned_up(
    gateway: Gateway, main_api: MainApi, status: int, kind: str, data: bytes
) -> None:
    added = "insert into pending_images (user_id, image_path, mime_type) values (1, :path, 'image/jpeg')"
    gateway.rows(added, path="/temp_images/profiles/1-profile-1-x.jpg")
    main_api.file = (status, kind, data)
    main_api.answer = (200, {"success": True})
    gateway.run_due()
    assert callback_of(gateway) == ("pending", "downloading", "waiting")
    assert {line.split()[0] for line in main_api.asked} == {"GET"}
    assert not list(gateway.services.media_bucket.list("bulk/")), "what was no image is not kept as the original"
    main_api.file = (200, "text/plain", picture())  # of a wrong type, as some servers have it
    make_due(gateway, "media")
    gateway.run_due("run-2")
    assert callback_of(gateway) == ("completed", "completed", "done")


def test_an_svg_logo_of_the_main_api_is_drawn(gateway: Gateway, main_api: MainApi) -> None:
    added = "insert into pending_images (user_id, image_path, mime_type) values (1, :path, 'image/svg+xml')"
    gateway.rows(added, path="/temp_images/profiles/1-logo-1-x.svg")
    main_api.file = (200, "image/svg+xml", LOGO)
    main_api.answer = (200, {"success": True})
    gateway.run_due()
    assert callback_of(gateway) == ("completed", "completed", "done")


@pytest.mark.parametrize("media_id", ["1", "77"])
def test_a_report_whose_acknowledgement_was_lost_is_not_refused_by_what_its_repetition_is_answered(
    gateway: Gateway, main_api: MainApi, media_id: str
) -> None:
    """Unless the upload was processed as another image meanwhile: that stays so."""
    gateway.upload(1, profile_image=picture())
    main_api.answer = (500, {})
    gateway.run_due()
    if media_id == "1":
        complete(gateway.services, 1, {"media_id": "1"})  # what it did before it answered
    else:
        gateway.rows("update pending_images set status = 'processed', permanent_url = :id", id=media_id)
    main_api.answer = (409, {"detail": "not pending any more"})
    make_due(gateway, "media")
    gateway.run_due("run-2")
    assert callback_of(gateway) == (("completed", "completed", "done") if media_id == "1" else GIVEN_UP)
    assert gateway.rows("select status, permanent_url from pending_images") == [("complete", media_id)]


def test_an_image_that_was_requeued_before_the_main_api_heard_of_its_failure_is_not_cleaned_up(
    make_gateway: Callable[..., Gateway], main_api: MainApi
) -> None:
    gateway = make_gateway(main_api_url=main_api.url, partner_timeout_seconds=20)
    good = picture()
    path = gateway.upload(1, profile_image=good).json()["profile_image_path"]
    bucket = gateway.services.media_bucket
    bucket.put(path.lstrip("/"), bytes(len(good)), content_type="image/jpeg", cache_control="no-store")
    main_api.answer = (503, {})
    gateway.run_due()
    assert gateway.rows("select state from work_items where queue = 'media_urls'") == [("waiting",)]
    (original,) = [one.key for one in bucket.list("bulk/")]
    bucket.put(original, good, content_type="image/jpeg", cache_control="private")
    assert gateway.services.claims.requeue(store.MEDIA) == [1]
    main_api.asked.clear()
    main_api.reports.clear()
    main_api.answer = (200, {"success": True})
    make_due(gateway, "media_urls")
    gateway.run_due("run-2")
    assert set(main_api.asked) == {"POST /api/media/complete/1"}
    assert callback_of(gateway) == ("completed", "completed", "done")


def test_an_analysis_is_healed_though_the_main_api_wants_no_second_report(
    make_gateway: Callable[..., Gateway], main_api: MainApi, standins: StandInAccess
) -> None:
    gateway = make_gateway(main_api_url=main_api.url, openai_api_key="healed", openai_base_url=standins.openai_url)
    standins.fault("openai", "wrong_shape", count=None)
    gateway.upload(1, profile_image=picture())
    main_api.answer = (200, {"success": True})
    gateway.run_due()
    standins.admin("DELETE", "faults")
    main_api.answer = (404, {})
    make_due(gateway, "media_healing")
    gateway.run_due("run-2")
    assert gateway.rows("select ai_visual_analysis from processing_checklist") == [("completed",)]
    assert gateway.rows("select state from work_items where queue = 'media_healing'") == [("done",)]


def providers_of(gateway: Gateway) -> dict[str, str]:
    """The providers' states of an image that is finished and shown."""
    gateway.finish(1, profile_image=picture())
    assert gateway.rows("select status from media_files") == [("completed",)]
    assert gateway.rows("select status from pending_images") == [("complete",)]
    ((states,),) = gateway.rows("select providers from media_ai_analysis")
    found: dict[str, str] = states
    return found


def test_a_vector_that_the_column_cannot_hold(make_gateway: Callable[..., Gateway], standins: StandInAccess) -> None:
    def answer(handler: BaseHTTPRequestHandler, _: int) -> None:
        if not handler.path.endswith("/embeddings"):
            reply(handler, b"{}", 400, Content_Type="application/json")
            return
        huge = {"embedding": [1e300] * 1536}
        body = {"object": "list", "model": "m", "data": [huge], "usage": {"prompt_tokens": 1}}
        reply(handler, json.dumps(body).encode(), Content_Type="application/json")

    with serving(answer) as server:
        states = providers_of(
            make_gateway(
                openai_api_key="vectors",
                openai_base_url=server.url,
                google_vision_api_key="test-key",
                google_vision_endpoint=standins.google_url,
            )
        )
    assert states["google_vision"] == "ok"
    wrong = "answered with 1e+300, which cannot be stored"
    assert states["openai_embedding"] == f"failed: text-embedding-3-small {wrong}"


def test_more_labels_than_can_be_embedded(make_gateway: Callable[..., Gateway], standins: StandInAccess) -> None:
    labels = [{"description": "word " * 100}] * 20_000
    with answering({"responses": [{"labelAnnotations": labels}]}) as google:
        sent: list[bytes] = []

        def listen(handler: BaseHTTPRequestHandler, _: int) -> None:
            if handler.path.endswith("/embeddings"):
                sent.append(handler.sent)  # type: ignore[attr-defined]  # by `serving`
            pass_on(handler, standins.openai_url)

        with serving(listen) as openai:
            states = providers_of(
                make_gateway(
                    openai_api_key="test-key",
                    openai_base_url=openai.url,
                    google_vision_api_key="test-key",
                    google_vision_endpoint=google.url,
                )
            )
    assert states["openai_embedding"] == states["google_vision"] == "ok"
    assert 300 < len(json.loads(sent[0])["input"]) <= 4_000
