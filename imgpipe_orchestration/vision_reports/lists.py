"""Reads the lists of due executions in a thread of its own, so that a slow one delays nobody's analyses."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

from imgpipe_orchestration.storage.claims import Claim
from imgpipe_orchestration.storage.rows import transaction
from imgpipe_orchestration.storage.work import Outcome, work_through
from imgpipe_orchestration.vision_reports import executions
from imgpipe_orchestration.vision_reports.listing import fetch_list

if TYPE_CHECKING:
    from imgpipe_orchestration.services import Services

_AT_ONCE, _SHARE = 16, 4
"""Lists read at the same time, and how many of them one organization has."""


@dataclass(frozen=True, slots=True)
class NotListed:
    """A sentence for each execution that could not be listed."""

    waiting: list[str] = field(default_factory=list)
    """Executions that are tried again."""
    given_up: list[str] = field(default_factory=list)
    """Executions that failed for good."""


class Lists:
    """The lists that a run reads. To be used by one thread.

    Args:
        deadline: of `time.monotonic()`, after which no further list is begun.
    """

    def __init__(self, services: Services, owner: str, deadline: float) -> None:
        self._services = services
        self._owner = owner
        self._deadline = deadline
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="vision-lists")
        self._reading: Future[Outcome] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Begin nothing more. What is being read ends by itself."""
        self._reader.shutdown(wait=False, cancel_futures=True)

    @property
    def at_work(self) -> bool:
        """Whether lists are being read."""
        return self._reading is not None and not self._reading.done()

    def look(self) -> None:
        """Start the executions of due cron jobs, and begin to read their lists."""
        if self._reading is None and (due := self._take(_AT_ONCE)):
            self._reading = self._reader.submit(self._read, due)

    def wait(self, seconds: float) -> None:
        """Wait until all are read, at most so long."""
        if self._reading is not None:
            wait([self._reading], seconds)

    def told(self) -> NotListed:
        """What could not be listed, once all are read, and only once."""
        if self._reading is None or not self._reading.done():
            return NotListed()
        outcome, self._reading = self._reading.result(), None
        return NotListed(*(self._sentences(problems) for problems in (outcome.retried, outcome.failed)))

    def _read(self, due: list[Claim]) -> Outcome:
        return work_through(
            self._services.claims,
            executions.QUEUE,
            due,
            lambda claim: fetch_list(self._services, claim),
            threads=_AT_ONCE,
            share=_SHARE,
            further=self._take,
            deadline=self._deadline,
        )

    def _take(self, free: int, full: Collection[str] = ()) -> list[Claim]:
        claims = self._services.claims
        executions.start_due(self._services.engine, claims)
        due = claims.claim(executions.QUEUE, self._owner, free, but=full)
        if due:
            executions.note_run(self._services.engine, [claim.item_id for claim in due], self._owner)
        return due

    def _sentences(self, problems: Mapping[int, str]) -> list[str]:
        with transaction(self._services.engine) as rows:
            names = executions.names(rows, list(problems))
            return [
                f"Execution {number}{f' of {names[number]}' if number in names else ''}: "
                + executions.with_next_try(rows, executions.QUEUE.name, number, reason)
                for number, reason in sorted(problems.items())
            ]
