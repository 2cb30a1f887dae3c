"""With MODERATION=hold nothing of an image leaves before its verdict, by no way and after no crash."""

import itertools
import time
from collections.abc import Callable
from pathlib import Path

import dagster as dg
import pytest
import requests

from imgpipe_orchestration.billing.calls import PaidCall
from imgpipe_orchestration.billing.tally import tallied
from imgpipe_orchestration.gateway.pages import overview
from imgpipe_orchestration.listings.assets import listing_images
from imgpipe_orchestration.media import intake
from imgpipe_orchestration.moderation import verdicts
from imgpipe_orchestration.operations import existing
from imgpipe_orchestration.operations.kinds import subject_of
from imgpipe_orchestration.resources import BackendsResource
from imgpipe_orchestration.storage.rows import transaction
from imgpipe_orchestration_tests.conftest import StandInAccess
from imgpipe_orchestration_tests.lifecycle.conftest import call
from imgpipe_orchestration_tests.lifecycle.worker import killing_itself
from imgpipe_orchestration_tests.media.conftest import Gateway, picture
from imgpipe_orchestration_tests.media.worker import today
from imgpipe_orchestration_tests.moderation.conftest import OTHER, USER, process, saying, send, verdict
from imgpipe_orchestration_tests.partners.wire import answering

DOUBTFUL = "sexual=0.91,violence=0.1"


def test_a_clear_image_is_shown_with_its_verdict_and_a_doubtful_one_waits_for_a_person(
    holding: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    clear, doubtful = send(holding, picture(seed=1)), send(holding, saying(DOUBTFUL, seed=2), user=OTHER)
    assert clear.shown() == {}
    process(holding)
    assert len(clear.shown()) > 4
    assert clear.shown()[clear.listing] == 200
    assert doubtful.shown() == {}
    found = verdict(holding, clear.media_id)
    assert (found["state"], found["provider"], found["model"]) == ("clear", "openai", "omni-moderation-latest-standin")
    found = verdict(holding, doubtful.media_id)
    assert (found["state"], found["categories"], found["scores"]["sexual"]) == ("held", ["sexual"], 0.91)
    own, listings = (holding.get(page).text for page in (f"/media/{doubtful.media_id}", "/listings"))
    assert "Held for review" in own and f"/serve/{doubtful.media_id}?" not in own
    assert "Held for review" in listings and f'src="{doubtful.listing}"' not in listings
    monkeypatch.setattr(overview, "PICTURES", 1)
    assert f"/serve/{clear.media_id}?" in holding.get("/").text, "the held one takes no place"
    with transaction(holding.services.engine) as connection:
        row = verdicts.find(connection, "media", doubtful.media_id)
    assert row is not None
    assert row.review_since is not None


def test_google_judges_once_for_media_and_listings(
    make_gateway: Callable[..., Gateway], standins: StandInAccess
) -> None:
    gateway = make_gateway(**standins.seeing, moderation="hold", moderation_provider="google")
    sent = send(gateway, saying("adult=1", seed=3))
    process(gateway)
    found = verdict(gateway, sent.media_id)
    assert (found["state"], found["provider"], found["categories"]) == ("held", "google", ["adult"])
    assert sent.shown() == {}
    assert len(standins.calls("google", "annotate")) == 2, "one for both, and one of the analysis"
    assert standins.calls("openai", "moderations") == []
    bill = {line["name"]: line["bought"] for line in gateway.get("/api/spending?by=task").json()["lines"]}
    assert (bill["moderate"], bill["labels"]) == (1, 1)
    older, now = (PaidCall.of("google", name, "vision-v1", inputs=["x"]).key for name in ("annotate", "safe_search"))
    assert older == now, "what was bought as the first is not bought again"


UNCLEAR = "Google Vision does not say how likely this is: adult. A person decides."


@pytest.mark.parametrize(
    ("mode", "said", "state", "reason"),
    [
        ("hold", {"violence": "UNLIKELY", "adult": "UNKNOWN"}, "held", UNCLEAR),
        ("hold", {"violence": "UNLIKELY"}, "held", UNCLEAR),
        ("flag", {"violence": "UNLIKELY"}, "clear", None),  # what is not held waits for nobody
        ("flag", {"violence": "VERY_LIKELY", "adult": "UNKNOWN"}, "flagged", "violence 1.00"),
        ("hold", {"violence": "VERY_LIKELY", "adult": "UNKNOWN"}, "held", "violence 1.00"),
    ],
)
def test_what_google_says_is_likely_counts_and_what_it_does_not_say_waits_for_a_person_where_that_is_held(
    mode: str,
    said: dict[str, str],
    state: str,
    reason: str | None,
    make_gateway: Callable[..., Gateway],
    standins: StandInAccess,
) -> None:
    with answering({"responses": [{"safeSearchAnnotation": {"racy": "UNLIKELY", **said}}]}) as google:
        seeing = {**standins.seeing, "google_vision_endpoint": google.url}
        gateway = make_gateway(**seeing, moderation=mode, moderation_provider="google")
        sent = send(gateway, picture(seed=3))
        process(gateway)
    found = verdict(gateway, sent.media_id)
    assert (found["state"], found["decided_by"]) == (state, None if reason == UNCLEAR else "google")
    assert found["reason"] == reason
    assert bool(sent.shown()) is (mode == "flag")


def test_the_runs_of_media_and_listings_say_what_judging_cost(
    make_gateway: Callable[..., Gateway], standins: StandInAccess, monkeypatch: pytest.MonkeyPatch
) -> None:
    gateway = make_gateway(**standins.seeing, moderation="hold", moderation_provider="google")
    for name, value in gateway.settings.environment().items():
        monkeypatch.setenv(name, value)
    send(gateway, picture(seed=4))
    with tallied() as paid:
        gateway.run_due()
    assert paid.figures(["safe_search"])["calls"] == 1
    run = dg.materialize([listing_images], partition_key=today(), resources={"backends": BackendsResource()})
    (made,) = run.asset_materializations_for_node("listing_images")
    assert made.metadata["saved_by_ledger_usd"].value == paid.figures(["safe_search"])["cost_usd"] > 0


def test_a_provider_that_is_away_passes_the_picture_on_to_the_next_one(
    make_gateway: Callable[..., Gateway], standins: StandInAccess, tmp_path: Path
) -> None:
    file = tmp_path / "models.toml"
    file.write_text('[tasks.moderate]\nuse = ["openai:omni-moderation-latest", "google"]')
    gateway = make_gateway(**standins.seeing, moderation="hold", models_file=str(file))
    standins.fault("openai", "server_error", operation="moderations", count=None, status=503)
    sent = send(gateway, saying("adult=1", seed=3))
    process(gateway)
    found = verdict(gateway, sent.media_id)
    assert (found["state"], found["provider"], found["categories"]) == ("held", "google", ["adult"])


def test_flag_shows_what_is_doubtful_and_off_asks_nobody(
    flagging: Gateway, make_gateway: Callable[..., Gateway], standins: StandInAccess
) -> None:
    sent = send(flagging, saying(DOUBTFUL, seed=4))
    process(flagging)
    assert verdict(flagging, sent.media_id)["state"] == "flagged"
    assert sent.shown()[f"/serve/{sent.media_id}"] == 200
    asked = len(standins.calls("openai", "moderations"))
    off = make_gateway(**standins.seeing, moderation="off")
    sent = send(off, saying(DOUBTFUL, seed=5))
    process(off)
    assert verdict(off, sent.media_id) is None
    assert len(standins.calls("openai", "moderations")) == asked
    assert sent.shown()[f"/serve/{sent.media_id}"] == 200


def test_while_the_provider_is_away_the_image_is_held_with_the_reason_and_asked_for_again(
    holding: Gateway, standins: StandInAccess
) -> None:
    standins.fault("openai", "server_error", operation="moderations", count=None, status=503)
    sent = send(holding, picture(seed=6))
    process(holding)
    assert sent.shown() == {}
    found = verdict(holding, sent.media_id)
    assert found["state"] == "held"
    assert "OpenAI" in found["reason"]
    standins.admin("DELETE", "faults")
    process(holding, "run-2")
    assert verdict(holding, sent.media_id)["state"] == "clear"
    assert f"/serve/{sent.media_id}" in sent.shown()


def test_what_was_deleted_before_its_verdict_is_judged_once_it_is_restored(
    holding: Gateway, standins: StandInAccess
) -> None:
    standins.fault("openai", "server_error", operation="moderations", count=None, status=503)
    sent = send(holding, picture(seed=6))
    process(holding)
    standins.admin("DELETE", "faults")
    item = "select i.failures, i.due_at > now() from work_items i join verdicts v on v.id = i.item_id"
    item += " where i.queue = 'moderation' and v.kind = 'media'"
    (before,) = holding.rows(item)
    assert call(holding, "DELETE", f"/api/media/{sent.media_id}", USER).status_code == 202
    process(holding, "run-2")
    assert holding.rows(item) == [(before.failures, True)]
    assert call(holding, "POST", f"/api/media/{sent.media_id}/restore", USER).json()["state"] == "held"
    existing.run(holding.services, "run-3")
    assert verdict(holding, sent.media_id)["state"] == "clear"


def test_a_held_image_leaves_the_cache_of_every_gateway(holding: Gateway, make_gateway: Callable[..., Gateway]) -> None:
    sent = send(holding, picture(seed=7))
    process(holding)
    other, path = make_gateway(moderation="hold"), f"/serve/{sent.media_id}"
    assert [gateway.get(path).status_code for gateway in (holding, other, other)] == [200, 200, 200]
    with transaction(holding.services.engine) as connection:
        verdicts.hold(holding.services, connection, subject_of("media"), sent.media_id, held=True)
    end = time.monotonic() + 6
    while (asked := time.monotonic()) and {gateway.get(path).status_code for gateway in (holding, other)} != {403}:
        assert asked < end, "still shown after six seconds"


def test_a_presigned_upload_cannot_be_read_back(holding: Gateway) -> None:
    data = picture(seed=8)
    wanted = {"kind": "product_image", "content_type": "image/jpeg", "size": len(data), "name": "a.jpg"}
    headers = holding.as_user(USER)
    url = f"{holding.url}/api/media/uploads"
    presigned = holding.session.post(url, json=wanted, headers=headers, timeout=30).json()
    requests.put(presigned["url"], data=data, headers=presigned["headers"], timeout=30).raise_for_status()
    assert requests.get(presigned["url"], timeout=30).status_code in {400, 403, 405}
    path = f"/api/media/uploads/{presigned['upload_id']}/commit"
    accepted = holding.session.post(holding.url + path, headers=headers, timeout=30).json()
    assert holding.get(accepted["image_path"]).status_code == 403


def test_a_media_worker_reads_a_held_upload_that_is_listed_for_it(holding: Gateway) -> None:
    data = picture(seed=8)
    sent = send(holding, data)
    url = f"{holding.url}/api/media/pending/all"
    (listed,) = holding.session.get(url, headers=holding.as_worker, timeout=30).json()["images"]
    for _ in ("before its intake", "after it"):
        answer = holding.session.get(holding.url + listed["image_path"], headers=holding.as_worker, timeout=30)
        assert (answer.status_code, answer.content, answer.headers["cache-control"]) == (200, data, "no-store")
        for headers in ({}, holding.as_user(USER)):
            answer = holding.session.get(holding.url + listed["image_path"], headers=headers, timeout=30)
            assert (answer.status_code, answer.json()["code"]) == (403, "held")
        assert sent.shown() == {}
        intake.take_in(holding.services)


@pytest.mark.timeout(1800)
@pytest.mark.slow
def test_killed_between_any_two_steps_nothing_is_shown_before_its_verdict(
    holding: Gateway, standins: StandInAccess
) -> None:
    """Nobody answers until the end, so whatever a worker left behind must be held; then everything is shown."""
    standins.fault("openai", "server_error", operation="moderations", count=None, status=503)
    sent = send(holding, picture(seed=9))
    with killing_itself(holding.settings) as killed:
        for step in itertools.count(1):
            alive = not killed("media", f"killed-{step}", step)
            assert sent.shown() == {}, f"after a kill before commit {step}"
            if alive:
                break
            holding.services.claims.release(f"killed-{step}")
    assert step > 10
    standins.admin("DELETE", "faults")
    holding.services.ledger.resume()
    process(holding)
    assert len(sent.shown()) > 4
