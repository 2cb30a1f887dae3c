"""Leases of many short jobs, kept by one thread."""

from __future__ import annotations

import threading

from imgpipe_orchestration.storage.leases import Keeper
from imgpipe_orchestration_tests.devstack.running import wait_for

LEASE = 0.03


def threads(name: str) -> int:
    return sum(thread.name == name for thread in threading.enumerate())


def test_one_thread_renews_all_that_is_held_and_nothing_else() -> None:
    renewed: list[frozenset[str]] = []
    keeper = Keeper(renewed.append, LEASE, name="together")
    with keeper.holding("a"):
        with keeper.holding("b"):
            wait_for(lambda: {"a", "b"} in renewed, "both to be renewed", 10)
            assert threads("together") == 1
        wait_for(lambda: renewed[-1] == {"a"}, "the one that is left", 10)
    wait_for(lambda: not threads("together"), "the thread to end", 10)
    assert frozenset() not in renewed


def test_after_a_pause_it_renews_again() -> None:
    renewed: list[frozenset[str]] = []
    keeper = Keeper(renewed.append, LEASE, name="anew")
    for lease in ("first", "second"):
        with keeper.holding(lease):
            wait_for(lambda lease=lease: {lease} in renewed, "a renewal", 10)
        wait_for(lambda: not threads("anew"), "the thread to end", 10)


def test_a_renewal_that_fails_is_tried_again() -> None:
    tries = 0

    def fails_once(_: frozenset[str]) -> None:
        nonlocal tries
        tries += 1
        if tries == 1:
            raise RuntimeError("the database is away")

    with Keeper(fails_once, LEASE, name="stubborn").holding("a"):
        wait_for(lambda: tries > 1, "another try", 10)
