"""The two kinds of run: inventing people and picturing them. What each claims and reports."""

from collections import Counter, defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from imgpipe_orchestration.avatars import store
from imgpipe_orchestration.avatars.export import write_manifests
from imgpipe_orchestration.avatars.lanes import Lanes
from imgpipe_orchestration.avatars.lifecycle import strays
from imgpipe_orchestration.avatars.model import Step
from imgpipe_orchestration.avatars.personas import invent
from imgpipe_orchestration.avatars.steps import ALL_STEPS, Made, picture
from imgpipe_orchestration.storage.claims import Claim
from imgpipe_orchestration.storage.rows import transaction
from imgpipe_orchestration.storage.work import Outcome, days_of, drain, working_as
from imgpipe_orchestration.wiring.services import Services

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
    made: dict[int, Counter[str]]
    """How many people were taken through each step (and, under 0, tasks got their people), by the day on which the task
    was asked for."""
    manifests: int = 0


def run_data(services: Services, owner: str) -> Report:
    """Claim tasks that are due and invent their people."""
    claims = services.claims
    lanes = Lanes.of(services.settings)

    with working_as(claims, owner):
        outcome = drain(
            claims,
            store.DATA,
            owner,
            lambda claim: invent(services, claim, lanes),
            threads=TASKS_AT_ONCE,
            seconds=RUN_SECONDS,
            interrupted=lanes.interrupted,
        )
    return Report(outcome, {0: days_of(services.engine, outcome.done, "generation_tasks")})


def run_images(
    services: Services, owner: str, *, steps: Collection[Step] = ALL_STEPS, lanes: Lanes | None = None
) -> Report:
    """Claim people who are due and take them through the steps; then write the manifests of tasks that are complete.

    Args:
        steps: the steps to do; people stop before the first one that is not among them.
        lanes: limits of parallel work; by default those of the settings.
    """
    claims = services.claims
    lanes = lanes or Lanes.of(services.settings)
    taken_through: Made = set()
    manifests = 0
    room = MOST_PEOPLE

    def take(free: int, full: Collection[str], *, joining: bool = False) -> Sequence[Claim]:
        nonlocal manifests, room
        if joining:
            manifests += write_manifests(services)  # of tasks whose last person has just been done
            # At least two where there is room for two: one may be new while the other comes back from a pause.
            if free < min(2, lanes.people):
                return []
        taken = claims.claim(store.IMAGES, owner, min(free, room), suspects=not joining, but=full)
        room -= len(taken)
        if taken:
            services.workshop.start()  # while the first pictures are being drawn
        return taken

    def work(claim: Claim) -> None:
        with transaction(services.engine) as connection:
            store.begin(connection, store.IMAGES, claim.item_id)
        picture(services, claim, lanes, steps, taken_through)

    with working_as(claims, owner):
        outcome = drain(
            claims,
            store.IMAGES,
            owner,
            work,
            threads=lanes.people,
            take=take,
            seconds=RUN_SECONDS,
            share=lanes.share,
            interrupted=lanes.interrupted,
        )
    for stray in strays(services):  # the purge may run on another machine
        stray.unlink(missing_ok=True)
    made = defaultdict[int, Counter[str]](Counter)
    for step, day, _ in taken_through:
        made[step][day] += 1
    return Report(outcome, made, manifests + write_manifests(services))
