"""Writes of many threads in one transaction: who goes with whom, and whose fault is whose."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import pytest
from sqlalchemy import Connection, Engine, text

from imgpipe_orchestration.errors import BackendUnavailable
from imgpipe_orchestration.storage import group_commit
from imgpipe_orchestration.storage.group_commit import GroupCommit
from imgpipe_orchestration.storage.rows import connect
from imgpipe_orchestration_tests.devstack.running import wait_for


class Notebook:
    """A table of numbers; its first write waits until the test lets it go on."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.group_commit = GroupCommit(engine)
        self.begun, self.go_on = threading.Event(), threading.Event()
        self.together: list[list[int]] = []
        with engine.begin() as connection:
            connection.execute(text("create table numbers (n int check (n > 0))"))

    def write(self, connection: Connection, numbers: Sequence[int]) -> list[str]:
        self.together.append(list(numbers))
        self.begun.set()
        assert self.go_on.wait(20)
        connection.execute(text("insert into numbers select unnest(cast(:n as int[]))"), {"n": list(numbers)})
        return [f"wrote {number}" for number in numbers]

    def behind_a_slow_one(self, pool: ThreadPoolExecutor, numbers: Sequence[int]) -> list[Future[str]]:
        """Write 1 and, while that is under way, `numbers`, each from a thread of its own and in this order."""
        write = self.write
        futures = [pool.submit(self.group_commit.commit, write, 1)]
        assert self.begun.wait(20)
        line = self.group_commit._lines[write]
        for count, number in enumerate(numbers, 1):
            futures.append(pool.submit(self.group_commit.commit, write, number))
            standing = lambda count=count: len(line.waiting) >= count  # noqa: E731
            wait_for(standing, f"{number} to stand in line", 20, every=0.001)
        self.go_on.set()
        return futures

    def kept(self) -> list[int]:
        with self.engine.begin() as connection:
            return sorted(connection.scalars(text("select n from numbers")))


@pytest.fixture
def notebook(engine: Engine) -> Notebook:
    return Notebook(engine)


def test_who_comes_while_another_writes_goes_with_the_next_and_gets_its_own_result(notebook: Notebook) -> None:
    with ThreadPoolExecutor(6) as pool:
        futures = notebook.behind_a_slow_one(pool, [2, 3, 4, 5])
        assert [future.result() for future in futures] == [f"wrote {n}" for n in (1, 2, 3, 4, 5)]
    assert notebook.together == [[1], [2, 3, 4, 5]]
    assert notebook.kept() == [1, 2, 3, 4, 5]


def test_no_transaction_takes_more_than_its_share(notebook: Notebook, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(group_commit, "MOST", 2)
    with ThreadPoolExecutor(6) as pool:
        notebook.behind_a_slow_one(pool, [2, 3, 4])
    assert notebook.together == [[1], [2, 3], [4]]


def test_one_that_cannot_be_written_takes_nobody_with_it(notebook: Notebook) -> None:
    with ThreadPoolExecutor(6) as pool:
        futures = notebook.behind_a_slow_one(pool, [2, -3, 4])
        assert [type(future.exception()).__name__ for future in futures] == [
            "NoneType",
            "NoneType",
            "IntegrityError",
            "NoneType",
        ]
    assert notebook.kept() == [1, 2, 4]


def test_a_database_that_is_away_is_said_to_all_and_nothing_waits_for_ever() -> None:
    away = GroupCommit(connect("postgresql://u@127.0.0.1:1/d"))
    write = lambda connection, numbers: list(numbers)  # noqa: E731 - one function for all of them
    with ThreadPoolExecutor(4) as pool:
        futures = [pool.submit(away.commit, write, n) for n in range(8)]
        assert {type(future.exception()) for future in futures} == {BackendUnavailable}
