"""Attributes that are made once."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

from imgpipe_orchestration.storage.made_once import made_once


class Shelf:
    def __init__(self) -> None:
        self.made = 0

    @made_once
    def wood(self) -> list[str]:
        time.sleep(0.01)
        self.made += 1
        return ["oak"]

    @made_once
    def board(self) -> list[str]:
        return [*self.wood, "sawn"]


def test_threads_that_ask_at_once_get_the_same() -> None:
    shelf, together = Shelf(), Barrier(8)

    def ask(number: int) -> list[str]:
        together.wait()
        return shelf.board if number % 2 else shelf.wood

    with ThreadPoolExecutor(8) as pool:
        asked = list(pool.map(ask, range(8)))
    assert shelf.made == 1
    assert all(one is (shelf.board if number % 2 else shelf.wood) for number, one in enumerate(asked))
