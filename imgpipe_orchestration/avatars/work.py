"""The two kinds of run: inventing people and picturing them. What each claims and reports.

A provider that is down is waited for without spending attempts, for up to PATIENCE_SECONDS. Only calls that nobody
charges for count: no connection, or a 5xx (`PartnerAway`). A call that timed out or broke off may have been charged, so
it spends an attempt. A 5xx that only this item gets, while others are answered, is no outage.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from sqlalchemy import text

from imgpipe_orchestration.avatars import records, store
from imgpipe_orchestration.avatars.export import write_manifests
from imgpipe_orchestration.avatars.lanes import Lanes
from imgpipe_orchestration.avatars.model import Step
from imgpipe_orchestration.avatars.personas import invent
from imgpipe_orchestration.avatars.steps import ALL_STEPS, picture
from imgpipe_orchestration.errors import PartnerAway, PartnerRefused
from imgpipe_orchestration.services import Services
from imgpipe_orchestration.storage.claims import Claim, Queue
from imgpipe_orchestration.storage.rows import transaction
from imgpipe_orchestration.storage.work import Outcome, drain, working_as

RUN_SECONDS = 1800.0
"""Time budget of one image run."""
MOST_PEOPLE = 100
"""Most people of one image run."""
TASKS_AT_ONCE = 4
"""Tasks of one data run. Several, so that the next task's questions are asked while the first one's last round runs."""

PATIENCE_SECONDS = 6 * 3600.0
SHORTEST, LONGEST = 15.0, 120.0
"""Limits of the seconds to the next try, which are a quarter of the time that the provider has been away."""

ALONE = 2 * SHORTEST
"""Seconds (three tries) after which an item that gets a 5xx is given up, if others were answered meanwhile."""


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

    def work(claim: Claim) -> None:
        _waiting_out(services, claim, lambda: invent(services, claim, lanes))

    with working_as(claims, owner):
        outcome = drain(
            claims, store.DATA, owner, work, threads=TASKS_AT_ONCE, seconds=RUN_SECONDS, interrupted=lanes.interrupted
        )
    with transaction(services.engine) as connection:
        done = connection.scalars(_DAYS_OF_TASKS, {"ids": [claim.item_id for claim in outcome.done]}).all()
    return Report(outcome, {0: Counter(done)})


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
    began: dict[int, int] = {}
    """The last step that each person had done before the run."""
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
            began.setdefault(claim.item_id, connection.execute(_STEPS, {"ids": [claim.item_id]}).one().step)
            store.begin(connection, store.IMAGES, claim.item_id)
        _waiting_out(services, claim, lambda: picture(services, claim, lanes, steps=steps))

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
    made = defaultdict[int, Counter[str]](Counter)
    with transaction(services.engine) as connection:
        for row in connection.execute(_STEPS, {"ids": list(began)}):
            for step in range(began[row.id] + 1, row.step + 1):
                made[step][row.day] += 1
    return Report(outcome, made, manifests + write_manifests(services))


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


# --- outages ----------------------------------------------------------------------------------------------------------


class Outage(PartnerAway):
    """A provider is away; the item waits for it."""

    title = "Waiting for a partner"
    spends_attempt = False


def _waiting_out(services: Services, claim: Claim, work: Callable[[], None]) -> None:
    """Do `work`, and let the item wait while a provider is away.

    Raises:
        Outage: a provider is away, for less than PATIENCE_SECONDS so far.
        PartnerRefused: it has been away for longer than that, or only for this item.
    """
    try:
        work()
    except PartnerAway as away:
        values = {"queue": claim.queue, "item": claim.item_id, "code": Outage("").code}
        with transaction(services.engine) as connection:
            waited = float(connection.scalar(_WAITED, values) or 0)
            item = f"task_{claim.item_id}" if claim.queue == store.DATA.name else f"%/persona_{claim.item_id}"
            alone = waited >= ALONE and away.partner_status is not None
            alone = alone and bool(connection.scalar(_OTHERS, {"item": item, "seconds": waited}))
        if alone:
            raise PartnerRefused(f"{away.public}; others were answered meanwhile", detail=away.detail) from away
        if waited >= PATIENCE_SECONDS:
            raise PartnerRefused(f"{away.public}; waited for since {_moment(-waited)}") from away
        pause = max(away.retry_after or 0.0, min(max(waited / 4, SHORTEST), LONGEST))
        told = f"{away.public}; it is asked again until {_moment(PATIENCE_SECONDS - waited)}"
        raise Outage(told, detail=away.detail, retry_after=pause, partner_status=away.partner_status) from away


def _moment(seconds: float) -> str:
    return f"{datetime.now(UTC) + timedelta(seconds=seconds):%Y-%m-%d %H:%M} UTC"


# Whether the provider answered the same kind of call of others since it first failed this item.
_OTHERS = text("""
    select exists (
        select from paid_call_uses bad join paid_call_uses good using (provider, operation)
        where bad.pipeline = 'avatars' and bad.item like :item and bad.outcome = 'failed'
            and good.outcome = 'bought' and good.error is null
            and least(bad.at, good.at) > clock_timestamp() - make_interval(secs => :seconds))
""")

# Seconds since the first of the item's latest consecutive attempts that ended with an outage.
_WAITED = text("""
    select extract(epoch from clock_timestamp() - min(ended_at)) from work_attempts
    where queue = :queue and item_id = :item and error_code = :code and attempt > coalesce((
        select max(attempt) from work_attempts
        where queue = :queue and item_id = :item and error_code is distinct from :code and outcome <> 'lost'), 0)
""")
