"""Briefs and pictures of avatars: nothing is paid for or published of what is held."""

from imgpipe_orchestration.operations import review
from imgpipe_orchestration.operations.kinds import subject_of
from imgpipe_orchestration.storage.rows import transaction
from imgpipe_orchestration_tests.avatars.conftest import Desk, avatar_settings, desk

__all__ = ["avatar_settings", "desk"]


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
