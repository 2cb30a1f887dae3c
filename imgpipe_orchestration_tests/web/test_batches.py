"""Work that is done for many items at once."""

from __future__ import annotations

from imgpipe_orchestration.web.batches import BATCH, Batches


def test_items_are_handed_over_once_a_batch_at_a_time_and_at_the_end() -> None:
    done: list[list[int]] = []
    batches = Batches(done.append)
    for number in range(BATCH + 2):
        batches.add(number)
    assert done == [list(range(BATCH))]
    batches.finish()
    assert done[1:] == [[BATCH, BATCH + 1]]


def test_items_that_come_while_a_batch_is_dealt_with_are_in_the_next_one() -> None:
    done: list[list[str]] = []

    def work(items: list[str]) -> None:
        done.append(items)
        if items == ["first"]:
            batches.add("second")

    batches = Batches(work)
    batches.add("first")
    batches.finish()
    batches.finish()
    assert done == [["first"], ["second"]]
