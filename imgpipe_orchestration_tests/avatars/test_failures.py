"""Partners that fail in every way they can: what is tried again, what is given up, what is paid."""

from __future__ import annotations

import base64
import json
from typing import NoReturn

import pytest
from sqlalchemy import text

from imgpipe_orchestration.avatars import store
from imgpipe_orchestration.avatars.model import PersonaStatus, Step, TaskStatus
from imgpipe_orchestration.billing.ledger import Ledger
from imgpipe_orchestration.errors import BackendUnavailable
from imgpipe_orchestration.storage.rows import transaction
from imgpipe_orchestration_tests.avatars.conftest import Desk
from imgpipe_orchestration_tests.avatars.relay import Relay


@pytest.mark.parametrize(
    ("provider", "kind", "reason", "stands_at"),
    [
        ("openai", "insufficient_quota", "quota is used up", TaskStatus.DATA_GENERATED),
        ("openai", "not_found", "does not know the model", TaskStatus.DATA_GENERATED),
        ("flowise", "unauthorized", "does not accept our credential", TaskStatus.PENDING),
    ],
)
def test_a_quota_key_or_model_that_is_not_accepted_holds_the_task_says_so_and_work_goes_on_once_it_is_mended(
    desk: Desk, provider: str, kind: str, reason: str, stands_at: TaskStatus
) -> None:
    desk.standins.fault(provider, kind, count=None)
    task = desk.ask(4)
    for _ in range(4):  # more often than an item has attempts
        desk.now()
        desk.data()
        desk.images()
    waiting = desk.task(task)
    assert waiting.status is stands_at
    assert reason in (waiting.waiting_for or "")
    assert not desk.services.claims.failures()

    desk.standins.admin("DELETE", "faults")
    desk.now()
    desk.data()
    desk.images()
    done = desk.task(task)
    assert (done.status, done.waiting_for, done.error_log) == (TaskStatus.COMPLETED, None, None)
    assert desk.calls("openai", "images") == 4


@pytest.mark.parametrize(("setting", "what"), [("openai_api_key", "draw"), ("flowise_base_url", "persona")])
def test_a_provider_that_is_not_configured_is_waited_for(desk: Desk, setting: str, what: str) -> None:
    configured = desk.services.settings
    desk.services.settings = configured.model_copy(update={setting: ""})
    task = desk.ask(1)
    desk.data()
    desk.images()
    assert f"No model answers the task {what}" in (desk.task(task).waiting_for or "")

    desk.services.settings = configured
    for made in ("models", "_clients"):
        desk.services.__dict__.pop(made, None)
    desk.now()
    desk.data()
    desk.images()
    assert desk.task(task).status is TaskStatus.COMPLETED


def test_a_refusal_fails_one_person_and_the_error_log_names_them(desk: Desk) -> None:
    task = desk.ask(3)
    desk.data()
    unlucky = desk.people(task)[1]
    desk.standins.fault("openai", "content_policy", operation="images", match=unlucky.name, count=None)
    desk.images()
    done = desk.task(task)
    assert done.status is TaskStatus.COMPLETED
    assert done.error_log == f"{unlucky.name} (result_id={unlucky.id}): OpenAI refused for its content policy"
    assert [p.status for p in desk.people(task)].count(PersonaStatus.COMPLETED) == 2


@pytest.mark.parametrize("kind", ["single_image", "half_grid", "blank_image"])
def test_a_grid_that_is_none_is_bought_once_more(desk: Desk, kind: str) -> None:
    desk.standins.fault("openai", kind, operation="edits")
    task = desk.ask(1)
    desk.data()
    desk.images()
    assert desk.task(task).status is TaskStatus.COMPLETED
    assert desk.calls("openai", "edits") == 2


def test_an_object_store_that_is_away_at_step_6_costs_nothing_but_time(desk: Desk) -> None:
    task = desk.ask(1)
    desk.data()
    desk.images(steps=set(Step) - {Step.UPLOAD, Step.URLS})
    assert desk.people(task)[0].step == Step.SPLIT
    endpoint = desk.services.settings.s3_endpoint
    _move_s3(desk, "http://127.0.0.1:1")
    report = desk.images()
    assert "object store" in next(iter(report.outcome.retried.values()))
    assert desk.task(task).status is TaskStatus.DATA_GENERATED
    assert "object store" in (desk.task(task).waiting_for or "")

    _move_s3(desk, endpoint)
    desk.now()
    desk.images()
    assert desk.task(task).status is TaskStatus.COMPLETED
    assert (desk.calls("openai", "images"), desk.calls("openai", "edits")) == (1, 1)


@pytest.mark.parametrize("lost", ["what the bucket knew of it", "what this machine had of it"])
def test_a_picture_that_the_journal_has_not_is_not_bought_again_while_one_place_knows_it(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, lost: str
) -> None:
    task = desk.ask(1)
    desk.data()
    desk.images(steps={Step.PROMPT})

    def away(*_: object) -> NoReturn:
        raise BackendUnavailable("The database cannot be reached.")

    with monkeypatch.context() as patch:
        patch.setattr(Ledger, "_commit", away)
        desk.images(steps={Step.BASE})
    bucket = desk.services.avatars_bucket
    (key,) = (found.key for found in bucket.list("avatars/"))
    (here,) = (desk.services.settings.imgpipe_data_dir / "avatars-bought").iterdir()
    if lost == "what this machine had of it":
        here.unlink()
    else:
        bucket.put(key, bucket.get(key), content_type="image/png")  # what the embedded store knows after a restart
    with transaction(desk.services.engine) as connection:
        connection.execute(text("update paid_calls set lease_until = now()"))
    desk.images_now()
    assert desk.task(task).status is TaskStatus.COMPLETED
    assert (desk.calls("openai", "images"), desk.calls("openai", "edits")) == (1, 1)
    assert list(here.parent.iterdir()) == []


@pytest.mark.parametrize(("last", "kind"), [(Step.BASE, "base"), (Step.SPLIT, "grid")])
def test_a_bought_picture_that_somebody_removed_is_bought_again_when_its_person_is_tried_again(
    desk: Desk, last: Step, kind: str
) -> None:
    task = desk.ask(1)
    desk.data()
    desk.images(steps={step for step in Step if step <= last})
    bucket = desk.services.avatars_bucket
    bucket.delete(_bought(desk, kind))
    for _ in range(store.IMAGES.max_attempts):
        desk.images_now()
    failed = desk.task(task)
    assert "is gone from the bucket" in (failed.error_log or "")
    with transaction(desk.services.engine) as connection:
        store.retry_failed(connection, desk.services.claims, failed)
    desk.images()
    assert desk.task(task).status is TaskStatus.COMPLETED


@pytest.mark.parametrize(("last", "kind"), [(Step.BASE, "base"), (Step.SPLIT, "grid")])
def test_a_bought_picture_that_a_failover_hides_for_a_while_is_waited_for_and_not_bought_again(
    desk: Desk, last: Step, kind: str
) -> None:
    task = desk.ask(1)
    desk.data()
    desk.images(steps={step for step in Step if step <= last})
    bucket, key = desk.services.avatars_bucket, _bought(desk, kind)
    data, head = bucket.get_with_head(key)
    bucket.delete(key)
    desk.images()
    assert "is not in the bucket" in (desk.task(task).waiting_for or "")
    bucket.put(key, data, content_type=head.content_type, metadata=head.metadata)
    desk.images_now()
    assert desk.task(task).status is TaskStatus.COMPLETED
    assert (desk.calls("openai", "images"), desk.calls("openai", "edits")) == (1, 1)


def _bought(desk: Desk, kind: str) -> str:
    return next(o.key for o in desk.services.avatars_bucket.list("avatars/") if f"/bought/{kind}-" in o.key)


def _move_s3(desk: Desk, endpoint: str) -> None:
    desk.services.__dict__.pop("objects", None)
    desk.services.settings = desk.services.settings.model_copy(update={"s3_endpoint": endpoint})


def test_pictures_of_which_only_the_address_comes_are_fetched_from_there(desk: Desk) -> None:
    with _openai_with_addresses(desk) as openai:
        update = {"openai_base_url": openai.url, "allowed_private_hosts": openai.host}
        desk.services.settings = desk.services.settings.model_copy(update=update)
        task = desk.ask(1)
        desk.data()
        desk.images()
        assert desk.task(task).status is TaskStatus.COMPLETED
        assert len(openai.fetched) == 2
    assert (desk.calls("openai", "images"), desk.calls("openai", "edits")) == (1, 1)
    assert desk.people(task)[0].cost_usd > 0


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("private", "private or reserved address"),
        ("missing", "there is nothing there"),
        ("page", "or none that we know"),
        ("neither", "neither an image nor the address of one"),
        ("nothing", "neither an image nor the address of one"),
    ],
)
def test_an_answer_without_a_picture_that_can_be_had_fails_the_person_and_is_bought_once(
    desk: Desk, answer: str, reason: str
) -> None:
    with _openai_with_addresses(desk) as openai:
        allowed = "" if answer == "private" else openai.host
        update = {"openai_base_url": openai.url, "allowed_private_hosts": allowed}
        desk.services.settings = desk.services.settings.model_copy(update=update)
        if answer == "missing":
            openai.rewrite = lambda _: json.dumps({"data": [{"url": f"http://{openai.host}/nowhere.png"}]}).encode()
        elif answer == "page":
            openai.files["/page.png"] = b"<html>Sign in</html>"
            openai.rewrite = lambda _: json.dumps({"data": [{"url": f"http://{openai.host}/page.png"}]}).encode()
        elif answer != "private":
            data = [{"revised_prompt": "a face"}] if answer == "neither" else []
            openai.rewrite = lambda _: json.dumps({"data": data}).encode()
        task = desk.ask(1)
        desk.data()
        for _ in range(4):
            desk.images_now()
        assert openai.fetched == {"missing": ["/nowhere.png"], "page": ["/page.png"]}.get(answer, [])
    failed = desk.task(task)
    assert failed.status is TaskStatus.FAILED
    assert reason in (failed.error_log or "")
    assert desk.calls("openai", "images") == 1


def _openai_with_addresses(desk: Desk) -> Relay:
    """OpenAI in the form of DALL-E: answers hold the address of a picture instead of the picture."""

    def moved(body: bytes) -> bytes:
        answer = json.loads(body)
        path = f"/files/{len(relay.files)}.png"
        relay.files[path] = base64.b64decode(answer["data"][0].pop("b64_json"))
        answer["data"][0]["url"] = f"http://{relay.host}{path}"
        return json.dumps(answer).encode()

    relay = Relay(desk.standins.openai_url, moved)
    relay.back()
    return relay
