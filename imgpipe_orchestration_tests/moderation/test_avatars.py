"""Briefs and pictures of avatars: nothing is paid for or published of what is held."""

from typing import Any

import pytest

from imgpipe_orchestration.avatars import steps
from imgpipe_orchestration.avatars.lanes import Lanes
from imgpipe_orchestration.avatars.lifecycle import picture_number
from imgpipe_orchestration.avatars.records import Persona
from imgpipe_orchestration.gateway.app import create_app
from imgpipe_orchestration.moderation import verdicts
from imgpipe_orchestration.operations import deletion, existing, review
from imgpipe_orchestration.operations.kinds import subject_of
from imgpipe_orchestration.storage.rows import transaction
from imgpipe_orchestration.storage.work import Shares
from imgpipe_orchestration.wiring.services import Services
from imgpipe_orchestration_tests.avatars.conftest import Desk, desk, settings
from imgpipe_orchestration_tests.client import Client

__all__ = ["desk", "settings"]


def test_a_held_brief_waits_before_the_first_picture_is_paid_for_and_goes_on_when_approved(desk: Desk) -> None:
    desk.change(moderation="hold")
    task = desk.made(brief="People of moderation(violence=0.9)")
    assert desk.calls("openai", "images") == 0
    with transaction(desk.services.engine) as connection:
        (one,) = review.waiting(connection, limit=10)
    assert (one.kind, one.item, one.categories) == ("briefs", task.id, ["violence"])
    review.decide(desk.services, subject_of("briefs"), one.item, approve=True, why="", who="eve")
    desk.eventually(desk.images_now, lambda: desk.people(task)[0].status.value == "completed")
    assert desk.calls("openai", "images") == 1
    with transaction(desk.services.engine) as connection:
        assert review.count(connection) == 0
    assert len(desk.standins.calls("openai", "moderations")) == 6, "the brief, and each of the five pictures"


def test_a_rejected_brief_fails_with_the_reason(desk: Desk) -> None:
    desk.change(moderation="hold")
    task = desk.made(brief="People of moderation(violence=0.9)")
    review.decide(desk.services, subject_of("briefs"), task.id, approve=False, why="No weapons", who="eve")
    desk.eventually(desk.images_now, lambda: desk.people(task)[0].status.value == "failed")
    assert "No weapons" in (desk.people(task)[0].error or "")
    assert desk.calls("openai", "images") == 0


def test_who_is_on_a_published_picture_that_is_rejected_is_deleted(desk: Desk) -> None:
    desk.change(moderation="flag")
    rejected, other = desk.people(desk.made(2))
    with Client(create_app(desk.services.settings)) as client:
        path = f"/api/moderation/avatars/{picture_number(rejected, 2)}"
        answer = client.post(path, json={"decision": "reject", "reason": "No hats"})
        assert answer.json()["verdict"]["state"] == "rejected"
        assert client.post(path, json={"decision": "approve"}).status_code == 410
    deletion.run(desk.services, "purge-1")
    left = {stored.key.split("/")[2] for stored in desk.services.avatars_bucket.list()}
    assert left == {f"persona_{other.id}"}
    assert [row.why for row in desk.sql("select why from deletions")] == ["rejected: No hats"]
    desk.sql("update generation_results set base_object = null")  # as where the bought selfie got lost
    review.decide(desk.services, subject_of("briefs"), other.task_id, approve=False, why="No bakers", who="eve")
    deletion.run(desk.services, "purge-2")
    assert list(desk.services.avatars_bucket.list()) == [], "those of a rejected brief are deleted, too"


@pytest.mark.parametrize(("kind", "making", "bought"), [("avatars", "_publish", 3), ("briefs", "draw", 1)])
def test_what_is_rejected_while_a_picture_is_drawn_or_uploaded_is_not_published_and_nothing_more_is_bought(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, kind: str, making: str, bought: int
) -> None:
    desk.change(moderation="flag")
    task, make = desk.with_people(3), getattr(steps, making)

    def rejected_meanwhile(services: Services, persona: Persona, *args: Any, **options: Any) -> Any:
        number = task.id if kind == "briefs" else picture_number(persona)
        review.decide(services, subject_of(kind), number, approve=False, why="No hats", who="eve")
        return make(services, persona, *args, **options)

    monkeypatch.setattr(steps, making, rejected_meanwhile)
    desk.images(lanes=Lanes(Shares(1), Shares(1), people=3))
    desk.eventually(desk.images_now, lambda: {person.status.value for person in desk.people(task)} == {"failed"})
    assert [("No hats" in (person.error or ""), person.images) for person in desk.people(task)] == [(True, {})] * 3
    assert desk.calls("openai", "images") == bought


def test_a_picture_that_waited_when_the_mode_was_changed_is_not_published(desk: Desk) -> None:
    desk.change(moderation="hold", moderation_provider="none")
    task = desk.made()
    review.decide(desk.services, subject_of("briefs"), task.id, approve=True, why="", who="eve")
    desk.images_now()
    (person,) = desk.people(task)
    desk.change(moderation="off")
    desk.images_now()
    assert desk.people(task)[0].images == {}
    assert existing.release(desk.services) == 1
    desk.eventually(desk.images_now, lambda: desk.people(task)[0].status.value == "completed")
    with transaction(desk.services.engine) as connection:
        assert verdicts.find(connection, "avatars", picture_number(person, 1)) is None, "nothing is asked"


def test_another_picture_is_bought_for_who_is_tried_again_after_a_rejection(desk: Desk) -> None:
    desk.change(moderation="hold", moderation_provider="none")
    task = desk.made()

    def decide(kind: str, *, approve: bool) -> None:
        with transaction(desk.services.engine) as connection:
            waiting = review.waiting(connection, limit=10)
        assert {one.kind for one in waiting} == {kind}
        for one in waiting:
            review.decide(desk.services, subject_of(kind), one.item, approve=approve, why="No hats", who="eve")
        desk.images_now()

    decide("briefs", approve=True)
    decide("avatars", approve=False)
    assert "No hats" in (desk.task(task).error_log or "")
    desk.sql("update generation_results set image_prompt = image_prompt || ' smiling'")  # the stand-in repeats itself
    desk.retry_failed(desk.task(task))
    desk.images_now()
    decide("avatars", approve=True)
    assert desk.calls("openai", "images") == 2
