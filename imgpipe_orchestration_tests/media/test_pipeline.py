"""An image from upload to its smart URL, stage by stage, without Dagster around it."""

import io
import json
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler

import pytest
import requests
from PIL import Image

from imgpipe_orchestration.media import intake, store
from imgpipe_orchestration.media.intake import due_days
from imgpipe_orchestration.media.model import Step
from imgpipe_orchestration_tests.conftest import S3Access, StandInAccess
from imgpipe_orchestration_tests.media.conftest import Gateway, picture
from imgpipe_orchestration_tests.media.worker import run, today
from imgpipe_orchestration_tests.partners.wire import pass_on, reply, serving
from imgpipe_orchestration_tests.parts import stop

SIZES = {"thumbnail", "small", "grid", "detail", "header", "zoom"}


def opened(answer: requests.Response) -> Image.Image:
    assert answer.status_code == 200, answer.text
    return Image.open(io.BytesIO(answer.content))


def make_due(gateway: Gateway, queue: str) -> None:
    """Let the pauses after a failure be over, the item's and the provider's."""
    gateway.rows("delete from spending_pauses")
    gateway.rows("update work_items set due_at = now() where queue = :queue and state = 'waiting'", queue=queue)


def test_a_photo_becomes_six_sizes_in_three_formats_at_one_url(gateway: Gateway) -> None:
    before = gateway.upload(456, profile_image=picture(1500, 1000)).json()["profile_image_path"]
    assert due_days(gateway.services, limit=5) != []
    gateway.run_due()
    after = gateway.me()["profile_image_path"]
    assert after == f"{gateway.url}/api/images/1?size=detail"
    assert gateway.get(before).status_code == 404
    assert opened(gateway.get("/serve/1?size=small", Accept="image/avif,image/webp")).format == "AVIF"
    assert opened(gateway.get("/serve/1?size=thumbnail", Accept="image/webp,*/*")).format == "WEBP"
    thumbnail = opened(gateway.get("/serve/1?size=thumbnail", Accept="*/*"))
    assert (thumbnail.format, thumbnail.size) == ("JPEG", (300, 300))
    assert opened(gateway.get("/serve/1")).size == (1200, 800)
    rows = gateway.rows("select size, format, bytes, object_key, sha256 from media_variants")
    assert {(row.size, row.format) for row in rows} >= {(size, "jpeg") for size in SIZES}
    for row in rows:
        assert gateway.services.media_bucket.head(row.object_key).size == row.bytes
        assert row.object_key.startswith("library/user_456/profile/img/")
    (original,) = [o.key for o in gateway.services.media_bucket.list("bulk/")]
    assert gateway.services.media_bucket.get(original) == picture(1500, 1000)
    assert gateway.rows("select status from pending_images") == [("complete",)]
    assert gateway.rows("select status from media_files") == [("completed",)]
    assert due_days(gateway.services, limit=5) == []


def test_the_analysis_is_there_and_in_the_rich_callback(seeing_gateway: Gateway) -> None:
    gateway = seeing_gateway
    gateway.finish(1, logo_image=picture(seed=3), site_image=picture(seed=4), texts={"bio": "Ceramics"})
    answer = gateway.get("/api/media/analysis/1", **gateway.as_worker).json()
    assert answer["success"] is True
    assert answer["standins"] == ["google_vision", "openai_vision", "openai_embedding"]
    logo = answer["analysis"]
    assert logo["providers"] == {"google_vision": "ok", "openai_vision": "ok", "openai_embedding": "ok"}
    assert {"style", "medium", "quality_score", "mood_keywords", "brand_colors", "dominant_colors"} <= set(logo)
    assert 0 <= logo["quality_score"] <= 100
    site = gateway.get("/api/media/analysis/2", **gateway.as_worker).json()["analysis"]
    assert set(site["site_context"]) == {"content_kind", "owner_fit", "owner_fit_reason", "seo_alt_text"}
    assert gateway.rows("select count(*) from media_ai_analysis where vector_dims(embedding) = 1536")[0][0] == 2


def test_without_keys_the_measured_part_says_which_provider_was_absent(gateway: Gateway) -> None:
    gateway.finish(1, profile_image=picture())
    answer = gateway.get("/api/media/analysis/1", **gateway.as_worker).json()
    analysis = answer["analysis"]
    assert "standins" not in answer
    assert set(analysis["providers"].values()) == {"absent"}
    assert analysis["dominant_colors"]
    assert "style" not in analysis
    assert gateway.rows("select ai_visual_analysis from processing_checklist") == [("completed",)]


@pytest.mark.parametrize("kind", ["unauthorized", "server_error", "truncated_json"])
def test_a_provider_that_fails_costs_its_fields_and_is_healed_later(
    seeing_gateway: Gateway, standins: StandInAccess, kind: str
) -> None:
    gateway = seeing_gateway
    standins.fault("openai", kind, count=None)
    gateway.finish(1, profile_image=picture())
    assert gateway.me(1)["profile_image_path"].startswith("http")  # served all the same
    analysis = gateway.get("/api/media/analysis/1", **gateway.as_worker).json()["analysis"]
    assert analysis["providers"]["google_vision"] == "ok"
    assert analysis["providers"]["openai_vision"].startswith("failed: ")
    assert gateway.rows("select ai_visual_analysis from processing_checklist") == [("failed",)]
    standins.admin("DELETE", "faults")
    make_due(gateway, "media_healing")
    gateway.run_due("run-2")
    analysis = gateway.get("/api/media/analysis/1", **gateway.as_worker).json()["analysis"]
    assert set(analysis["providers"].values()) == {"ok"}
    assert gateway.rows("select ai_visual_analysis from processing_checklist") == [("completed",)]
    assert len(standins.calls("google")) == 1, "what Google had answered was not bought again"


def test_a_healed_analysis_that_shows_the_subject_elsewhere_has_the_crops_made_again(
    make_gateway: Callable[..., Gateway], standins: StandInAccess
) -> None:
    face = {"boundingPoly": {"vertices": [{"x": 10, "y": 10}, {"x": 60, "y": 60}]}, "detectionConfidence": 0.9}
    seen = json.dumps({"responses": [{"faceAnnotations": [face]}]}).encode()
    query = """select m.focus ->> 'reason', max(v.sha256) from media_files m join media_variants v on v.media_id = m.id
        where v.size = 'thumbnail' group by m.id"""
    is_away = True

    def google(handler: BaseHTTPRequestHandler, _: int) -> None:
        if is_away:
            reply(handler, b"{}", 400, Content_Type="application/json")
        else:
            reply(handler, seen, Content_Type="application/json")

    with serving(google) as server:
        gateway = make_gateway(google_vision_api_key="k", google_vision_endpoint=server.url, moderation="off")
        gateway.finish(1, profile_image=picture(1200, 400))
        made = gateway.rows(query)
        assert "faces" not in {row[0] for row in made}
        is_away = False
        make_due(gateway, "media_healing")
        again = gateway.run_due("run-2")["resize_optimize"]
    assert len(again.outcome.done) == 1
    ((reason, crop),) = gateway.rows(query)
    assert reason == "faces" and crop not in {row[1] for row in made}


def test_text_beside_an_error_are_kept_and_only_the_rest_is_asked_for_again(
    make_gateway: Callable[..., Gateway],
) -> None:
    asked: list[set[str]] = []
    busy = {"error": {"code": 14, "message": "busy"}}
    cat = {"name": "Cat", "score": 0.9, "boundingPoly": {"normalizedVertices": [{"x": 0.1}, {"x": 0.5, "y": 0.5}]}}
    answers = [{"textAnnotations": [{"description": "OPEN"}], **busy}, busy, {"localizedObjectAnnotations": [cat]}]

    def google(handler: BaseHTTPRequestHandler, number: int) -> None:
        (request,) = json.loads(server.requests[number][2])["requests"]
        asked.append({feature["type"] for feature in request["features"]})
        body = json.dumps({"responses": [answers[min(number, len(answers) - 1)]]}).encode()
        reply(handler, body, Content_Type="application/json")

    with serving(google) as server:
        gateway = make_gateway(google_vision_api_key="k", google_vision_endpoint=server.url, moderation="off")
        gateway.finish(1, profile_image=picture())
        (row,) = gateway.rows("select detected_text, providers ->> 'google_vision' as google from media_ai_analysis")
        assert row.detected_text == "OPEN"
        assert row.google.startswith("failed: ")
        make_due(gateway, "media_healing")
        gateway.run_due("run-2")
        (row,) = gateway.rows(
            "select detected_objects, detected_text, providers ->> 'google_vision' as google from media_ai_analysis"
        )
    assert ([thing["name"] for thing in row.detected_objects], row.detected_text, row.google) == (["Cat"], "OPEN", "ok")
    assert len(asked) == 3
    assert asked[1] == asked[2] == asked[0] - {"TEXT_DETECTION"}


_LIST_PRICES = {"OBJECT_LOCALIZATION": 2.25, "CROP_HINTS": 0}
"""US dollars per 1,000 images and feature; of every other feature 1.50. Crop hints are free with IMAGE_PROPERTIES.
https://cloud.google.com/vision/pricing"""


def test_googles_bill_at_list_prices(make_gateway: Callable[..., Gateway], standins: StandInAccess) -> None:
    with serving(lambda h, _: pass_on(h, standins.google_url)) as server:
        gateway = make_gateway(google_vision_api_key="bill", google_vision_endpoint=server.url, moderation="off")
        bills = {}
        for number, kind in enumerate(("profile_image", "header_image", "logo_image")):
            gateway.upload(number + 1, **{kind: picture(seed=70 + number)})
            gateway.run_due(f"run-{number}")
            (asked,) = json.loads(server.requests[-1][2])["requests"]
            assert len(server.requests) == number + 1
            features = [feature["type"] for feature in asked["features"]]
            assert "CROP_HINTS" not in features or "IMAGE_PROPERTIES" in features
            bills[kind] = sum(_LIST_PRICES.get(name, 1.50) for name in features)
    assert bills == {"profile_image": 5.25, "header_image": 3.75, "logo_image": 1.50}
    units = gateway.rows("select units from paid_calls where provider = 'google' order by created_at")
    assert [1.5 * float(row.units) for row in units] == list(bills.values())


def test_a_corrupt_image_fails_alone_with_its_reason_and_can_be_requeued(gateway: Gateway) -> None:
    broken = picture(1500, 1000)
    broken = broken[: len(broken) // 2]
    gateway.upload(1, profile_image=picture(seed=8), header_image=broken)
    stages = gateway.run_due()
    assert [r[0] for r in gateway.rows("select status from pending_images order by id")] == ["complete", "failed"]
    (row,) = gateway.rows("select id, error from media_files where status = 'failed'")
    assert "jpeg" in row.error
    answer = gateway.get(f"/api/images/{row.id}")
    assert answer.status_code == 404
    assert row.error in answer.json()["detail"]
    assert row.id in {**stages["ai_visual_analysis"].outcome.failed, **stages["resize_optimize"].outcome.failed}
    assert gateway.services.claims.requeue(store.MEDIA) == [row.id]
    gateway.run_due("run-2")
    assert gateway.rows("select state from work_items where queue = 'media' and item_id = 2") == [("failed",)]


def test_an_image_is_shown_before_it_is_ready(gateway: Gateway) -> None:
    photo = picture()
    gateway.upload(1, profile_image=photo)
    intake.take_in(gateway.services)
    answer = gateway.get("/api/images/1?size=thumbnail")
    assert answer.content == photo
    assert answer.headers["cache-control"] == "no-store"
    told = gateway.get("/api/images/1?size=thumbnail&explain=1").json()
    assert told["asked"]["size"] == "thumbnail"
    assert "its original is shown" in told["because"]["status"]


def assert_nothing_orphaned(gateway: Gateway) -> None:
    """Every object is named by a row and every row's object is there."""
    stored = {o.key for o in gateway.services.media_bucket.list()}
    named = {row[0] for row in gateway.rows("select object_key from media_variants")}
    named |= {row[0] for row in gateway.rows("select bulk_path from media_files where bulk_path is not null")}
    waiting = gateway.rows("select image_path from pending_images where status not in ('complete')")
    assert stored - {row[0].lstrip("/") for row in waiting} == named


def test_s3_away_during_a_run_gives_the_work_back_without_spending_attempts(gateway: Gateway, s3: S3Access) -> None:
    gateway.upload(1, profile_image=picture())
    stop(s3.server)
    try:
        gateway.run_due()
    finally:
        s3.server.start()
        s3.server.wait_until_ready()
    (row,) = gateway.rows("select state, failures, error from work_items where queue = 'media'")
    assert (row.state, row.failures) == ("waiting", 0)
    assert "object store" in row.error
    assert gateway.rows("select retrieve_file, retrieve_file_attempts from processing_checklist") == [("pending", 0)]
    make_due(gateway, "media")
    gateway.run_due("run-2")
    assert gateway.rows("select status from pending_images") == [("complete",)]


def test_an_original_that_somebody_removes_on_the_way_is_put_back_from_the_temp_file(gateway: Gateway) -> None:
    services = gateway.services
    gateway.upload(1, profile_image=picture())
    run(services, "run-1", today(), "retrieve_file")
    (kept,) = [one.key for one in services.media_bucket.list("bulk/")]
    services.media_bucket.delete(kept)
    run(services, "run-1", today(), "ai_visual_analysis")
    services.media_bucket.delete(kept)
    run(services, "run-1", today(), "resize_optimize")
    run(services, "run-1", today(), "update_callback")
    run(services, "run-1", today(), "replace_urls")
    assert gateway.rows("select status from pending_images") == [("complete",)]
    assert services.media_bucket.get(kept) == picture()


@pytest.mark.parametrize("step", [Step.AI_VISUAL_ANALYSIS, Step.RESIZE_OPTIMIZE])
@pytest.mark.parametrize("fault", ["a failover hides it and its temp file", "it is not given whole"])
def test_an_original_that_cannot_be_had_for_a_while_is_waited_for(gateway: Gateway, step: Step, fault: str) -> None:
    services, bucket = gateway.services, gateway.services.media_bucket
    gateway.upload(1, profile_image=picture())
    run(services, "run-1", today(), "retrieve_file")
    if step is Step.RESIZE_OPTIMIZE:
        run(services, "run-1", today(), "ai_visual_analysis")
    if fault == "it is not given whole":
        keys = [one.key for one in bucket.list("bulk/")]
        bucket.put(keys[0], picture()[:1000], content_type="image/jpeg")
    else:
        keys = [one.key for one in bucket.list()]
        bucket.delete_all(keys)
    run(services, "run-1", today(), "ai_visual_analysis")
    run(services, "run-1", today(), "resize_optimize")
    (row,) = gateway.rows("select state, failures, error from work_items where queue = 'media'")
    assert (row.state, row.failures) == ("waiting", 1)
    if fault == "it is not given whole":
        assert "gave 1,000 bytes" in row.error
        assert gateway.get("/serve/1").status_code == 503
    for key in keys:
        bucket.put(key, picture(), content_type="image/jpeg")
    make_due(gateway, "media")
    gateway.run_due("run-2")
    assert gateway.rows("select status from pending_images") == [("complete",)]


def test_a_callback_that_fails_is_tried_three_times_and_then_shown(make_gateway: Callable[..., Gateway]) -> None:
    tries = 3
    gateway = make_gateway(main_api_url="http://127.0.0.1:9", partner_timeout_seconds=0.2)
    path = gateway.upload(1, profile_image=picture()).json()["profile_image_path"]
    for attempt in range(tries):
        make_due(gateway, "media")
        gateway.run_due(f"run-{attempt}")
    (row,) = gateway.rows("select update_callback, update_callback_attempts, resize_optimize from processing_checklist")
    assert tuple(row) == ("failed", tries, "completed")
    assert gateway.rows("select state from work_items where queue = 'media'") == [("failed",)]
    attempts = gateway.rows("select outcome from work_attempts where queue = 'media' order by id")
    assert [row[0] for row in attempts] == ["retry"] * (tries - 1) + ["failed"]
    # The variants are there. A clean-up at the main API would delete what its user sees.
    assert gateway.rows("select status from pending_images") == [("failed",)]
    assert gateway.rows("select state from work_items where queue = 'media_urls'") == [("done",)]
    assert gateway.get(path).status_code == 200


def test_a_main_api_of_somebody_elses_is_told_of_what_failed(make_gateway: Callable[..., Gateway]) -> None:
    main_api = make_gateway()
    gateway = make_gateway(main_api_url=main_api.url)
    broken = picture(900, 600)
    path = gateway.upload(1, profile_image=broken[: len(broken) // 2]).json()["profile_image_path"]
    stages = gateway.run_due()
    assert stages["replace_urls"].figures["failures_told"] == 1
    assert gateway.get(path).status_code == 404, "the main API removed its temp file"
    assert gateway.rows("select count(*) from media_files where bulk_path is not null")[0][0] == 1
