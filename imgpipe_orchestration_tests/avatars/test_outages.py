"""Providers that go away and come back: everybody waits, says for what, and goes on."""

from __future__ import annotations

import pytest
from sqlalchemy import text

from imgpipe_orchestration.avatars import outages, store
from imgpipe_orchestration.avatars.model import PersonaStatus, TaskStatus
from imgpipe_orchestration.storage.rows import transaction
from imgpipe_orchestration_tests.avatars.conftest import Desk
from imgpipe_orchestration_tests.avatars.relay import Relay

MORE_THAN_ATTEMPTS = store.DATA.max_attempts + 2


@pytest.mark.slow
def test_a_flowise_that_cannot_be_reached_is_waited_for_and_the_task_goes_on_when_it_is_back(desk: Desk) -> None:
    with Relay(desk.standins.flowise_url) as flowise:
        desk.use_flowise(flowise.url)
        task = desk.ask(2)
        for _ in range(MORE_THAN_ATTEMPTS):
            desk.now()
            desk.data()
            waiting = desk.task(task)
            assert waiting.status is TaskStatus.PENDING
            assert "Flowise could not be reached" in (waiting.waiting_for or "")
            assert "it is asked again until 20" in (waiting.waiting_for or "")
        assert _failures(desk) == 0
        assert not desk.services.claims.due_partitions(store.DATA), "it is left alone for a moment"

        flowise.back()
        desk.now()
        desk.data()
        assert (desk.task(task).status, desk.task(task).waiting_for) == (TaskStatus.DATA_GENERATED, None)

        flowise.away()  # and the prompts are its work, too
        for _ in range(MORE_THAN_ATTEMPTS):
            desk.images_now()
        assert "Flowise could not be reached" in (desk.task(task).waiting_for or "")
        assert {p.status for p in desk.people(task)} == {PersonaStatus.PENDING}
        assert _failures(desk) == 0

        flowise.back()
        desk.images_now()
    done = desk.task(task)
    assert (done.status, done.waiting_for, done.error_log) == (TaskStatus.COMPLETED, None, None)


@pytest.mark.parametrize("how", ["refused", pytest.param("503", marks=pytest.mark.slow)])
def test_an_openai_that_is_away_is_waited_for_and_nothing_is_paid_twice(desk: Desk, how: str) -> None:
    with Relay(desk.standins.openai_url) as openai:
        desk.services.settings = desk.services.settings.model_copy(update={"openai_base_url": openai.url})
        task = desk.ask(2)
        desk.data()
        if how == "503":
            openai.back()
            desk.standins.fault("openai", "server_error", status=503, count=None)
        for _ in range(MORE_THAN_ATTEMPTS):
            desk.images_now()
            reason = "OpenAI could not be reached" if how == "refused" else "OpenAI failed (HTTP 503)"
            assert reason in (desk.task(task).waiting_for or "")
        assert {p.status for p in desk.people(task)} == {PersonaStatus.PENDING}
        assert _failures(desk) == 0

        if how == "refused":
            openai.back()
        desk.standins.admin("DELETE", "faults")
        desk.images_now()
    assert desk.task(task).status is TaskStatus.COMPLETED
    assert (desk.calls("openai", "images"), desk.calls("openai", "edits")) == (2, 2)


def test_a_provider_that_stays_away_is_given_up_with_the_reason_and_a_retry_waits_anew(desk: Desk) -> None:
    with Relay(desk.standins.flowise_url) as flowise:
        desk.use_flowise(flowise.url)
        task = desk.ask(1)
        desk.data()
        assert desk.services.claims.claim_these(store.DATA, "dies", [task.id])
        desk.services.claims.release("dies", died=True)  # which says nothing of the provider
        with transaction(desk.services.engine) as connection:
            connection.execute(
                text("update work_attempts set ended_at = ended_at - make_interval(secs => :limit)"),
                {"limit": outages.PATIENCE_SECONDS},
            )
        desk.now()
        desk.data()
        failed = desk.task(task)
        assert failed.status is TaskStatus.FAILED
        assert "could not be reached" in (failed.error_log or "")
        assert "waited for since 20" in (failed.error_log or "")

        with transaction(desk.services.engine) as connection:
            store.retry_failed(connection, desk.services.claims, failed)
        desk.data()
        assert desk.task(task).status is TaskStatus.PENDING
        flowise.back()
        desk.now()
        desk.data()
        desk.images_now()
    assert desk.task(task).status is TaskStatus.COMPLETED


def test_a_flowise_that_goes_away_in_the_middle_of_a_round_is_asked_for_the_rest_alone(desk: Desk) -> None:
    task = desk.ask(12)
    desk.standins.fault("flowise", "server_error", status=502, count=None, after=3)
    desk.data()
    waiting = desk.task(task)
    assert waiting.status is TaskStatus.PENDING
    assert "Flowise failed (HTTP 502)" in (waiting.waiting_for or "")
    there = {person.id: person.name for person in desk.people(task)}
    assert there, "what was answered before is kept"

    desk.standins.admin("DELETE", "faults")
    desk.now()
    desk.data()
    people = {person.id: person.name for person in desk.people(task)}
    assert len(people) == 12
    assert there.items() <= people.items()
    assert desk.calls("flowise", "prediction") <= 6


def _failures(desk: Desk) -> int:
    """Attempts that were spent."""
    with transaction(desk.services.engine) as connection:
        return int(connection.scalar(text("select coalesce(sum(failures), 0) from work_items")) or 0)
