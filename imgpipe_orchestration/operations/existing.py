"""Judging what waits in the queue, and what was there before anybody judged: how much that is, and what it costs."""

from dataclasses import dataclass
from decimal import Decimal
from functools import partial

from sqlalchemy import text

from imgpipe_orchestration.billing.prices import cost_of
from imgpipe_orchestration.errors import BadInput, ImgpipeError
from imgpipe_orchestration.moderation import judging, verdicts
from imgpipe_orchestration.moderation.judging import SAFE_SEARCH
from imgpipe_orchestration.moderation.model import Subject, digest_of
from imgpipe_orchestration.moderation.verdicts import JUDGE
from imgpipe_orchestration.operations.kinds import SUBJECTS, subject_of
from imgpipe_orchestration.partners.usage import Usage
from imgpipe_orchestration.storage.rows import transaction
from imgpipe_orchestration.storage.work import Outcome, drain, working_as
from imgpipe_orchestration.telemetry.logs import logger
from imgpipe_orchestration.wiring.services import Services

log = logger(__name__)

MOST = 100_000
"""Things are counted and judged up to this number."""
RUN_SECONDS = 300.0


@dataclass(frozen=True, slots=True)
class Existing:
    """What has no verdict. `usd` is the most that judging costs; None where nobody judges. `unshown` are things that
    are held only because no verdict came."""

    unjudged: int
    usd: Decimal | None
    provider: str
    unshown: int


def run(services: Services, owner: str) -> Outcome:
    """Judge what is due in the queue, for at most RUN_SECONDS."""
    claims, judge_one = services.claims, partial(judging.judge, services, subject_of=subject_of)
    with working_as(claims, owner):
        return drain(claims, JUDGE, owner, judge_one, threads=judging.THREADS, batch_size=100, seconds=RUN_SECONDS)


def due(services: Services) -> bool:
    """Whether there is anything to judge now."""
    return services.settings.moderation != "off" and bool(services.claims.due_partitions(JUDGE, limit=1))


def look(services: Services) -> Existing:
    """Count what has no verdict, and price it."""
    judge = next(iter(services.models.choices("moderate")), None)
    values = {"limit": MOST, "judged": bool(judge)}
    with transaction(services.engine) as connection:
        unjudged, unshown = 0, connection.scalar(_UNSHOWN) or 0
        for one in (one for one in SUBJECTS if one.table):
            query = f"select count(*), count(*) filter (where held and {_NO_VERDICT}) from ({_unjudged(one)}) t"
            found, held = connection.execute(text(query), {**values, "kind": one.name}).one()
            unjudged, unshown = unjudged + found, unshown + held
    each: Decimal | None = Decimal(0) if judge else None
    if judge and services.models.providers[judge.provider].dialect == "google-vision":
        from imgpipe_orchestration.partners.google_vision import MODEL, units_of

        each = cost_of(MODEL, Usage(model=MODEL, units=units_of(SAFE_SEARCH)), services.ledger.prices)
    return Existing(unjudged, None if each is None else each * unjudged, judge.provider if judge else "", unshown)


def judge(services: Services, *, hide: bool, most: int = MOST) -> int:
    """Order verdicts on things that have none; returns on how many.

    Args:
        hide: hold each back until its verdict, whatever MODERATION says. Otherwise they stay shown meanwhile.

    Raises:
        BadInput: MODERATION is off.
    """
    if services.settings.moderation == "off":
        raise BadInput("MODERATION is off: nothing is judged. Set it to flag or hold first.")
    values = {"limit": most, "judged": bool(services.models.choices("moderate"))}
    ordered = 0
    for subject in SUBJECTS:
        if not subject.table:
            continue
        with transaction(services.engine) as connection:
            items = connection.scalars(text(_unjudged(subject)), values).all()
        for item in items:
            if ordered == most:
                return ordered
            ordered += _ask(services, subject, item, hide=hide)
    services.claims.hasten(JUDGE)
    return ordered


def _ask(services: Services, subject: Subject, item: int, *, hide: bool) -> bool:
    try:
        with transaction(services.engine) as connection:
            user_id, sha256 = subject.facts(connection, item)
        sha256 = sha256 or digest_of(subject.content(services, item))
        with transaction(services.engine) as connection:
            verdicts.ask(services, connection, subject, item, user_id=user_id, sha256=sha256, holding=hide)
    except ImgpipeError as error:
        if error.report:  # a store is away
            raise
        log.warning("cannot be judged", extra={"item": subject.what(item), "error": error.public})
        return False
    return True


def release(services: Services) -> int:
    """Show what is held only because no verdict came; returns how much. What a person, a model or reports hold back
    stays so.

    Raises:
        BadInput: MODERATION is hold.
    """
    if services.settings.moderation == "hold":
        raise BadInput("MODERATION is hold: nothing is shown before its verdict.")
    shown = 0
    with transaction(services.engine) as connection:
        for subject in SUBJECTS:
            for item in connection.scalars(_RELEASE, {"kind": subject.name}).all():
                verdicts.hold(services, connection, subject, item, held=False)
                shown += 1
            if not subject.table:
                continue
            query = text(f"update {subject.table} t set held = false where held and {_NO_VERDICT}")
            shown += connection.execute(query, {"kind": subject.name}).rowcount
    return shown


# Without a provider, things that already wait for a verdict are not queued again.
def _unjudged(subject: Subject) -> str:
    return f"""
        select t.id, t.held from live_{subject.table.removesuffix("_files")} t
        where not exists (select from verdicts v where v.kind = '{subject.name}' and v.item = t.id and (
            v.state <> 'waiting' or not :judged
            or exists (select from work_items w where w.queue = '{JUDGE.name}' and w.item_id = v.id)))
        order by t.id limit :limit
    """


_NO_VERDICT = "not exists (select from verdicts v where v.kind = :kind and v.item = t.id)"

_UNSHOWN = text("select count(*) from verdicts where holding and decided_by is null")

_RELEASE = text("""
    update verdicts set holding = false, state = 'waiting', review_since = null, moved_at = now()
    where kind = :kind and holding and decided_by is null returning item
""")
