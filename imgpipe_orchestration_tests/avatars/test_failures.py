"""Partners that fail in every way they can: what is tried again, what is given up, what is paid."""

import base64
import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from typing import NoReturn

import pytest

from imgpipe_orchestration.avatars import store
from imgpipe_orchestration.avatars.model import PersonaStatus, Step, TaskStatus
from imgpipe_orchestration.billing.ledger import Ledger
from imgpipe_orchestration.errors import BackendUnavailable
from imgpipe_orchestration_tests.avatars.conftest import Desk
from imgpipe_orchestration_tests.partners.wire import Server, pass_on, reply, serving


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
        desk.both_now()
    waiting = desk.task(task)
    assert waiting.status is stands_at
    assert reason in (waiting.waiting_for or "")
    assert not desk.services.claims.failures()

    desk.standins.admin("DELETE", "faults")
    desk.both_now()
    done = desk.task(task)
    assert (done.status, done.waiting_for, done.error_log) == (TaskStatus.COMPLETED, None, None)
    assert desk.calls("openai", "images") == 4


@pytest.mark.parametrize(("setting", "what"), [("openai_api_key", "draw"), ("flowise_base_url", "persona")])
def test_a_provider_that_is_not_configured_is_waited_for(desk: Desk, setting: str, what: str) -> None:
    configured = desk.services.settings
    desk.services.settings = configured.model_copy(update={setting: ""})
    task = desk.made(1)
    assert f"No model answers the task {what}" in (desk.task(task).waiting_for or "")

    desk.services.settings = configured
    for made in ("models", "_clients"):
        desk.services.__dict__.pop(made, None)
    desk.both_now()
    assert desk.task(task).status is TaskStatus.COMPLETED


def test_a_refusal_fails_one_person_and_the_error_log_names_them(desk: Desk) -> None:
    task = desk.with_people(3)
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
    task = desk.made(1)
    assert desk.task(task).status is TaskStatus.COMPLETED
    assert desk.calls("openai", "edits") == 2


def test_a_picture_for_which_a_busy_machine_has_no_time_is_looked_at_again_and_not_bought_again(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as busy:
        busy.setattr(desk.services.workshop, "wall_seconds", 0.01)
        task = desk.made(1)
    assert desk.task(task).status is TaskStatus.DATA_GENERATED
    desk.both_now()
    assert desk.task(task).status is TaskStatus.COMPLETED
    assert desk.calls("openai", "images") == 1


def test_an_object_store_that_is_away_at_step_6_costs_nothing_but_time(desk: Desk) -> None:
    task = desk.with_people(1)
    desk.images(steps=set(Step) - {Step.UPLOAD, Step.URLS})
    assert desk.people(task)[0].step == Step.SPLIT
    endpoint = desk.services.settings.s3_endpoint
    _move_s3(desk, "http://127.0.0.1:1")
    report = desk.images()
    assert "object store" in next(iter(report.outcome.retried.values()))
    assert desk.task(task).status is TaskStatus.DATA_GENERATED
    assert "object store" in (desk.task(task).waiting_for or "")

    _move_s3(desk, endpoint)
    desk.images_now()
    assert desk.task(task).status is TaskStatus.COMPLETED
    assert (desk.calls("openai", "images"), desk.calls("openai", "edits")) == (1, 1)


@pytest.mark.parametrize("lost", ["what the bucket knew of it", "what this machine had of it"])
def test_a_picture_that_the_journal_has_not_is_not_bought_again_while_one_place_knows_it(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, lost: str
) -> None:
    task = desk.with_people(1)
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
    desk.sql("update paid_calls set lease_until = now()")
    desk.images_now()
    assert desk.task(task).status is TaskStatus.COMPLETED
    assert (desk.calls("openai", "images"), desk.calls("openai", "edits")) == (1, 1)
    assert list(here.parent.iterdir()) == []


@pytest.mark.parametrize(("last", "kind"), [(Step.BASE, "base"), (Step.SPLIT, "grid")])
@pytest.mark.parametrize("comes_back", [True, False])
def test_a_bought_picture_that_is_away_is_waited_for_and_bought_again_only_if_its_person_is_tried_again(
    desk: Desk, last: Step, kind: str, comes_back: bool
) -> None:
    """Away by a failover that hides it for a while, or because somebody removed it."""
    task = desk.with_people(1)
    desk.images(steps={step for step in Step if step <= last})
    bucket, key = desk.services.avatars_bucket, _bought(desk, kind)
    data, head = bucket.get_with_head(key)
    bucket.delete(key)
    desk.images()
    assert "is not in the bucket" in (desk.task(task).waiting_for or "")
    if comes_back:
        bucket.put(key, data, content_type=head.content_type, metadata=head.metadata)
        desk.images_now()
        assert (desk.calls("openai", "images"), desk.calls("openai", "edits")) == (1, 1)
    else:
        for _ in range(store.IMAGES.max_attempts - 1):
            desk.images_now()
        failed = desk.task(task)
        assert "is gone from the bucket" in (failed.error_log or "")
        desk.retry_failed(failed)
        desk.images()
    assert desk.task(task).status is TaskStatus.COMPLETED


def _bought(desk: Desk, kind: str) -> str:
    return next(o.key for o in desk.services.avatars_bucket.list("avatars/") if f"/bought/{kind}-" in o.key)


def _move_s3(desk: Desk, endpoint: str) -> None:
    desk.services.__dict__.pop("objects", None)
    desk.change(s3_endpoint=endpoint)


@contextmanager
def openai_with_addresses(desk: Desk, data: list[dict[str, str]] | None = None) -> Iterator[Server]:
    """OpenAI in the form of DALL-E: an answer holds the address of a picture instead of it, or the given data."""
    files = {"/page.png": b"<html>Sign in</html>"}

    def moved(body: bytes) -> bytes:
        answer = json.loads(body)
        if data is None:
            path = f"/{len(files)}.png"
            files[path] = base64.b64decode(answer["data"][0].pop("b64_json"))
            answer["data"][0]["url"] = path
        else:
            answer = {"data": data}
        return json.dumps(answer).replace('"/', f'"{server.url}/').encode()

    def behave(handler: BaseHTTPRequestHandler, _: int) -> None:
        if handler.command == "POST":
            return pass_on(handler, desk.standins.openai_url, moved)
        status = 200 if handler.path in files else 404
        return reply(handler, files.get(handler.path, b""), status, Content_Type="image/png")

    with serving(behave) as server:
        desk.change(openai_base_url=server.url, allowed_private_hosts=f"127.0.0.1:{server.port}")
        yield server


def fetched(server: Server) -> list[str]:
    return [path for path in server.paths if path.endswith(".png")]


def test_pictures_of_which_only_the_address_comes_are_fetched_from_there(desk: Desk) -> None:
    with openai_with_addresses(desk) as openai:
        task = desk.made(1)
        assert desk.task(task).status is TaskStatus.COMPLETED
        assert len(fetched(openai)) == 2
    assert (desk.calls("openai", "images"), desk.calls("openai", "edits")) == (1, 1)
    assert desk.cost(task) > 0


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (None, "private or reserved address"),
        ([{"url": "/nowhere.png"}], "there is nothing there"),
        ([{"url": "/page.png"}], "or in an unknown format"),
        ([{"revised_prompt": "a face"}], "neither an image nor the address of one"),
        ([], "neither an image nor the address of one"),
    ],
    ids=["private", "missing", "page", "neither", "nothing"],
)
def test_an_answer_without_a_picture_that_can_be_had_fails_the_person_and_is_bought_once(
    desk: Desk, data: list[dict[str, str]] | None, reason: str
) -> None:
    with openai_with_addresses(desk, data) as openai:
        if data is None:
            desk.change(allowed_private_hosts="")
        task = desk.with_people(1)
        for _ in range(4):
            desk.images_now()
        assert fetched(openai) == [one["url"] for one in data or [] if "url" in one]
    failed = desk.task(task)
    assert failed.status is TaskStatus.FAILED
    assert reason in (failed.error_log or "")
    assert desk.calls("openai", "images") == 1
