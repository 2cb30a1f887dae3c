"""Providers that go away and come back: everybody waits, says for what, and goes on."""

import pytest

from imgpipe_orchestration.avatars import store
from imgpipe_orchestration.avatars.model import PersonaStatus, TaskStatus
from imgpipe_orchestration.devstack.ports import free_port
from imgpipe_orchestration_tests.avatars.conftest import Desk
from imgpipe_orchestration_tests.avatars.flowise import flowise_answering
from imgpipe_orchestration_tests.avatars.test_personas import person
from imgpipe_orchestration_tests.partners.wire import pass_on, serving

MORE_THAN_ATTEMPTS = store.DATA.max_attempts + 2


def test_an_openai_that_is_away_is_waited_for_and_nothing_is_paid_twice(desk: Desk) -> None:
    port = free_port()
    desk.change(openai_base_url=f"http://127.0.0.1:{port}")
    task = desk.with_people(2)
    for _ in range(MORE_THAN_ATTEMPTS):
        desk.images_now()
        assert "OpenAI could not be reached" in (desk.task(task).waiting_for or "")
    assert {p.status for p in desk.people(task)} == {PersonaStatus.PENDING}

    with serving(lambda handler, _: pass_on(handler, desk.standins.openai_url), port=port):
        desk.images_now()
    assert desk.task(task).status is TaskStatus.COMPLETED
    assert (desk.calls("openai", "images"), desk.calls("openai", "edits")) == (2, 2)


def test_a_provider_that_stays_away_is_given_up_with_the_reason_and_a_retry_waits_anew(desk: Desk) -> None:
    port = free_port()
    desk.use_flowise(f"http://127.0.0.1:{port}")
    task = desk.with_people(1)
    assert desk.services.claims.claim_these(store.DATA, "dies", [task.id])
    desk.services.claims.release("dies", died=True)  # which says nothing of the provider
    _let_it_have_failed_often(desk)
    desk.data_now()
    failed = desk.task(task)
    assert failed.status is TaskStatus.FAILED
    assert "could not be reached" in (failed.error_log or "")

    desk.retry_failed(failed)
    desk.data()
    assert desk.task(task).status is TaskStatus.PENDING
    with serving(lambda handler, _: pass_on(handler, desk.standins.flowise_url), port=port):
        desk.both_now()
    assert desk.task(task).status is TaskStatus.COMPLETED


FILTERED = "Error: predictionsServices.buildChatflow - 400 The response was filtered"


def test_a_500_about_one_question_is_given_up_and_the_others_go_on(desk: Desk) -> None:
    others = [{"json": [person(name)]} for name in ("Ada", "Ben", "Cleo", "Dora", "Emil", "Finn")]
    with flowise_answering(*others) as flowise:
        flowise.hard = {'"seed": 7,': FILTERED}
        desk.use_flowise(flowise.url)
        desk.change(multithread_flowise=3)
        task = desk.with_people(3, seed=7)
        assert {p.firstname for p in desk.people(task)} == {"Ada", "Ben", "Cleo"}, "another question brought the third"
        assert len(flowise.server.requests) <= 3 + 3

        flowise.hard = {"brief": FILTERED}
        task = desk.ask(2)
        desk.eventually(desk.data_now, lambda: desk.task(task).status is TaskStatus.FAILED, seconds=120)
    assert FILTERED in (desk.task(task).error_log or "")


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        ("Error: 429 You exceeded your current quota, please check your plan", "quota"),
        ("Error: 401 Incorrect API key provided: sk-abcdefghijklmnop", "key is refused"),
    ],
)
def test_a_500_that_wraps_a_quota_or_a_refused_key_waits_for_people(desk: Desk, words: str, shown: str) -> None:
    with flowise_answering({"json": [person("Ada")]}) as flowise:
        flowise.hard = {"brief": words}
        desk.use_flowise(flowise.url)
        task = desk.with_people(1)
        waiting = desk.task(task)
        assert waiting.status is TaskStatus.PENDING
        assert shown in (waiting.waiting_for or "")
        assert "sk-abcdef" not in (waiting.waiting_for or "")
        assert len(flowise.server.requests) == 1, "asking again would not help"
    assert desk.sql("select sum(failures) from work_items") == [(0,)], "an attempt was spent"


def test_a_picture_that_only_one_person_is_refused_is_given_up(desk: Desk) -> None:
    task = desk.with_people(2)
    first, second = desk.people(task)
    desk.standins.fault("openai", "server_error", operation="images", match=first.firstname, count=None)
    desk.images_now()
    assert FAILED_ALONE in (desk.task(task).waiting_for or "")
    _let_it_have_failed_often(desk)
    desk.eventually(desk.images_now, lambda: desk.task(task).status is TaskStatus.COMPLETED)
    assert {p.id: p.status for p in desk.people(task)} == {
        first.id: PersonaStatus.FAILED,
        second.id: PersonaStatus.COMPLETED,
    }
    assert FAILED_ALONE in (desk.task(task).error_log or "")


FAILED_ALONE = "OpenAI failed (HTTP 500): The server had an error"


def _let_it_have_failed_often(desk: Desk) -> None:
    """What waits has one attempt left."""
    desk.sql("update work_items set failures = :n where state = 'waiting'", n=store.AWAY_ATTEMPTS - 1)
