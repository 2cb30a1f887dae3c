"""The two kinds of run: inventing people and picturing them. What each claims and reports."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from sqlalchemy import text

from imgpipe_orchestration.avatars import records, store
from imgpipe_orchestration.avatars.lanes import Lanes
from imgpipe_orchestration.avatars.manifest import write_manifests
from imgpipe_orchestration.avatars.model import Step
from imgpipe_orchestration.avatars.outages import waiting_out
from imgpipe_orchestration.avatars.personas import invent
from imgpipe_orchestration.avatars.steps import ALL_STEPS, picture
from imgpipe_orchestration.services import Services
from imgpipe_orchestration.storage.claims import Claim, Queue
from imgpipe_orchestration.storage.rows import transaction
from imgpipe_orchestration.storage.work import Outcome, work_through

RUN_SECONDS = 1800.0
"""Time budget of one image run."""
MOST_PEOPLE = 100
"""Most people of one image run."""
TASKS_AT_ONCE = 4
"""Tasks of one data run. Several, so that the next task's questions are asked while the first one's last round runs."""


@dataclass
class Report:
    """What a run did, for its metadata."""

    outcome: Outcome
    manifests: int = 0
    passed: dict[str, list[range]] = field(default_factory=dict)
    """By the day on which the task was asked for: of each person (or task) the steps that this run has done."""

    def days(self, step: Step | None = None) -> dict[str, int]:
        """How many people were taken through a step (or tasks were done), by day; without days of none."""
        counts = {day: sum(step is None or step in done for done in each) for day, each in self.passed.items()}
        return {day: count for day, count in counts.items() if count}


def run_data(services: Services, owner: str) -> Report:
    """Claim tasks that are due and invent their people."""
    claims = services.claims
    lanes = Lanes.of(services.settings)
    with claims.hold(owner):

        def begin(batch: list[Claim]) -> list[Claim]:
            with transaction(services.engine) as connection:
                store.begin(connection, store.DATA, [claim.item_id for claim in batch])
            return batch

        def further(free: int, _: object) -> list[Claim]:
            return begin(claims.claim(store.DATA, owner, free, suspects=False))

        batch = begin(claims.owned(store.DATA, owner) or claims.claim(store.DATA, owner, TASKS_AT_ONCE))

        def data(claim: Claim) -> None:
            waiting_out(services, claim, lambda: invent(services, claim, lanes))

        outcome = work_through(
            claims,
            store.DATA,
            batch,
            data,
            threads=TASKS_AT_ONCE,
            deadline=time.monotonic() + RUN_SECONDS,
            further=None if any(claim.losses for claim in batch) else further,
            interrupted=lanes.interrupted,
        )
        claims.release(owner)  # what the time budget left
    with transaction(services.engine) as connection:
        done = connection.scalars(_DAYS_OF_TASKS, {"ids": [claim.item_id for claim in outcome.done]}).all()
    return Report(outcome, passed={day: [range(0)] * count for day, count in Counter(done).items()})


def run_images(
    services: Services, owner: str, *, steps: Collection[Step] = ALL_STEPS, lanes: Lanes | None = None
) -> Report:
    """Claim people who are due and take them through the steps; then write the manifests of tasks that are complete.

    Args:
        steps: the steps to do; people stop before the first one that is not among them.
        lanes: limits of parallel work; by default those of the settings.
    """
    claims, settings = services.claims, services.settings
    lanes = lanes or Lanes.of(settings)
    began: dict[int, int] = {}
    manifests = 0

    def take(free: int, *, joining: bool = True, but: Collection[str] = ()) -> list[Claim]:
        """Claim as many due people as can begin at once and no more: then tasks take turns, and a new task need not
        wait for a hundred people of an earlier one."""
        free = min(free, MOST_PEOPLE - len(began))
        taken = claims.claim(store.IMAGES, owner, free, suspects=not joining, but=but)
        begin(taken)
        return taken

    def begin(taken: Sequence[Claim]) -> None:
        ids = [claim.item_id for claim in taken]
        with transaction(services.engine) as connection:
            began.update({row.id: row.step for row in connection.execute(_STEPS, {"ids": ids})})
            store.begin(connection, store.IMAGES, ids)

    def further(free: int, full: Collection[str]) -> list[Claim]:
        nonlocal manifests
        manifests += write_manifests(services)  # of tasks whose last person has just been done
        # At least two where there is room for two: one may be new while the other comes back from a pause.
        return take(free, but=full) if free >= min(2, lanes.people) else []

    def pictures(claim: Claim) -> None:
        waiting_out(services, claim, lambda: picture(services, claim, lanes, steps=steps))

    with claims.hold(owner):
        batch = claims.owned(store.IMAGES, owner)
        begin(batch)
        batch += take(max(0, lanes.people - len(batch)), joining=False)
        if batch:
            services.workshop.start()  # while the first pictures are being drawn
        outcome = work_through(
            claims,
            store.IMAGES,
            batch,
            pictures,
            threads=lanes.people,
            share=lanes.share,
            deadline=time.monotonic() + RUN_SECONDS,
            further=None if any(claim.losses for claim in batch) else further,
            interrupted=lanes.interrupted,
        )
        claims.release(owner)  # what the time budget or the choice of steps left
    passed = defaultdict[str, list[range]](list)
    with transaction(services.engine) as connection:
        for row in connection.execute(_STEPS, {"ids": list(began)}):
            passed[row.day].append(range(began[row.id] + 1, row.step + 1))
    return Report(outcome, manifests=manifests + write_manifests(services), passed=passed)


def due(services: Services, queue: Queue) -> bool:
    """Whether a run would find something to do; an index look-up."""
    if services.claims.due_partitions(queue, limit=1):
        return True
    if queue is store.DATA:
        return False
    with transaction(services.engine) as connection:
        return bool(records.unwritten(connection, limit=1))


_DAY = "to_char(t.created_at at time zone 'UTC', 'YYYY-MM-DD')"
_DAYS_OF_TASKS = text(f"select {_DAY} from generation_tasks t where id = any(:ids)")
_STEPS = text(f"""
    select r.id, r.step, {_DAY} as day from generation_results r join generation_tasks t on t.id = r.task_id
    where r.id = any(:ids)
""")
