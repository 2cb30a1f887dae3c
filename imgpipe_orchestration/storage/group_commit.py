"""Group commit: small writes of many threads in one transaction.

A transaction's cost hardly depends on how much it writes. So threads that want to write while another is writing wait,
and then one of them writes for all. A thread on its own writes at once.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine

from imgpipe_orchestration.errors import BackendUnavailable
from imgpipe_orchestration.storage.rows import transaction

In = TypeVar("In")
Out = TypeVar("Out")

MOST = 64
"""Entries written by one transaction; limits how long its locks are held."""


@dataclass(eq=False)
class _Entry:
    value: Any
    done: bool = False
    result: Any = None
    error: BaseException | None = None


@dataclass
class _Line:
    """The entries that wait for one kind of write."""

    writing: threading.Lock = field(default_factory=threading.Lock)
    waiting: deque[_Entry] = field(default_factory=deque)


class GroupCommit:
    """The group commits of one process on one database."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._lines: dict[Any, _Line] = {}

    def commit(self, write: Callable[[Connection, Sequence[In]], Sequence[Out]], value: In) -> Out:
        """Have `write` called with `value`, perhaps together with others' values; returns its result once committed.

        Args:
            write: takes a transaction and some values, and returns as many results. Values are written together when
                they come with the same function.

        Raises:
            BackendUnavailable: as `rows.transaction`.
            Exception: whatever `write` raises for this value.
        """
        entry = _Entry(value)
        line = self._lines.setdefault(write, _Line())
        line.waiting.append(entry)
        while not entry.done:
            with line.writing:
                if not entry.done:
                    self._write(write, [line.waiting.popleft() for _ in range(min(MOST, len(line.waiting)))])
        if entry.error is not None:
            raise entry.error
        return entry.result  # type: ignore[no-any-return]

    def _write(self, write: Callable[[Connection, Sequence[Any]], Sequence[Any]], batch: Sequence[_Entry]) -> None:
        try:
            with transaction(self._engine) as connection:
                results = list(zip(batch, write(connection, [entry.value for entry in batch]), strict=True))
        except BaseException as error:
            if len(batch) > 1 and isinstance(error, Exception) and not isinstance(error, BackendUnavailable):
                # A value that cannot be written must not make the others fail.
                for entry in batch:
                    self._write(write, [entry])
                return
            for entry in batch:
                entry.error, entry.done = error, True
        else:
            for entry, result in results:
                entry.result, entry.done = result, True
