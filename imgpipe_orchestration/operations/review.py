"""What waits for a person, who looks at which of it, what people decide, and what the public reports.

Reports are counted, and from REPORTS_TO_HOLD on the thing is held back until a person has looked.
"""

from contextlib import suppress
from dataclasses import dataclass

from sqlalchemy import Connection, text

from imgpipe_orchestration.errors import Conflict
from imgpipe_orchestration.identity import audit
from imgpipe_orchestration.lifecycle import trash
from imgpipe_orchestration.moderation import verdicts
from imgpipe_orchestration.moderation.model import State, Subject, digest_of
from imgpipe_orchestration.moderation.verdicts import COLUMNS, Verdict, verdict
from imgpipe_orchestration.operations.kinds import subject_of
from imgpipe_orchestration.storage import deletions
from imgpipe_orchestration.storage.deletions import Purged
from imgpipe_orchestration.storage.rows import autocommit, transaction
from imgpipe_orchestration.wiring.services import Services

CLAIM_SECONDS = 600
"""How long nobody else is shown what somebody is looking at."""


def waiting(connection: Connection, *, after: int = 0, limit: int) -> list[Verdict]:
    """A page of the review list, by id, without what others are looking at. What comes to it may stand on any page.

    Args:
        after: the id of the last one of the page before.
    """
    return [verdict(row) for row in connection.execute(_WAITING, {"after": after, "limit": limit})]


def take(services: Services, reviewer: str, *, limit: int) -> list[Verdict]:
    """Those that `reviewer` looks at, and the next that nobody does: two reviewers never get the same."""
    values = {"reviewer": reviewer, "limit": limit, "seconds": CLAIM_SECONDS}
    with transaction(services.engine) as connection:
        connection.execute(_TAKE, values)
        return [verdict(row) for row in connection.execute(_TAKEN, values)]


def count(connection: Connection) -> int:
    """How many wait."""
    return connection.scalar(text(f"select count(*) from verdicts v where {_OPEN}")) or 0


@dataclass(frozen=True, slots=True)
class Figures:
    """Verdicts since midnight UTC by state, how many things wait for a person, and how long the oldest has."""

    verdicts: dict[str, int]
    waiting: int
    oldest_seconds: float


def figures(connection: Connection) -> Figures:
    """For metrics and the alert."""
    made = {state.value: 0 for state in State if state is not State.WAITING}
    made |= {row.state: row.n for row in connection.execute(_MADE)}
    row = connection.execute(_OLDEST).one()
    return Figures(made, row.waiting, float(row.seconds or 0))


def others(connection: Connection, one: Verdict, *, limit: int) -> list[Verdict]:
    """Further things of the same user, the newest first."""
    values = {"user": one.user_id, "id": one.id, "limit": limit}
    return [verdict(row) for row in connection.execute(_OTHERS, values)] if one.user_id is not None else []


def ensure(services: Services, subject: Subject, item: int) -> None:
    """Give a thing that nobody asked about a row, so that it can be decided on or reported.

    Raises:
        NotFound, Deleted: it is not there.
    """
    with transaction(services.engine) as connection:
        if verdicts.find(connection, subject.name, item) is not None:
            return
        user_id, sha256 = subject.facts(connection, item)
    sha256 = sha256 or digest_of(subject.content(services, item))
    with autocommit(services.engine) as connection:  # nothing of the request yet that the audit should have
        verdicts.add(services, connection, subject, item, user_id=user_id, sha256=sha256)


def decide(
    services: Services, subject: Subject, item: int, *, approve: bool, why: str, who: str, first: bool = False
) -> Verdict:
    """Approve or reject a thing, and with it all things of the same bytes. The same decision twice is one; another one
    later counts.

    Raises:
        Conflict: somebody decided otherwise, and this is to be the `first` decision.
        NotFound, Deleted: it is not there.
        Purged: it was rejected, and is gone for good.
    """
    ensure(services, subject, item)
    wanted = State.APPROVED if approve else State.REJECTED
    with autocommit(services.engine) as connection:
        seen = verdicts.find(connection, subject.name, item)
    if seen is not None and seen.by_person and seen.state is wanted:
        return seen  # without the lock, which the audit would take for a change
    with transaction(services.engine) as connection:
        found = verdicts.find(connection, subject.name, item, lock=True)
        assert found is not None  # noqa: S101 - as ensured
        if found.by_person and found.state is wanted:
            return found
        if first and found.by_person:
            raise Conflict(f"{found.decided_by} has decided: {found.state}.")
        _decide(services, connection, found, approve=approve, why=why, who=who)
        what = subject.what(item)
        values = {"id": found.id, "approved": approve, "what": what, "why": why, "who": who}
        connection.execute(_REMEMBER, values)
        audit.note(before={"state": found.state.value}, after={"state": wanted.value, "reason": why}, subject=what)
        words = f"Its bytes are those of {what}. {why}".strip()
        for row in connection.execute(_SAME, {"id": found.id, "state": wanted.value}).all():
            with suppress(Purged):
                _decide(services, connection, verdict(row), approve=approve, why=words, who=who)
        decided = verdicts.find(connection, subject.name, item)
        assert decided is not None  # noqa: S101 - its row is locked
        return decided


def _decide(services: Services, connection: Connection, found: Verdict, *, approve: bool, why: str, who: str) -> None:
    subject = subject_of(found.kind)
    if approve and found.state is State.REJECTED:
        what = subject.what(found.item)
        if subject.named is not None and subject.published(connection, found.item) is not None:
            what = subject.named(connection, found.item)  # the whole of what it is a part of was deleted
        deletion = deletions.find(connection, what, lock=True)
        # What its owner deleted as well stays deleted.
        if deletion is not None and deletion.why.startswith(deletions.REJECTED):
            trash.take_out(services, connection, subject.kind, what)
    verdicts.decide(services, connection, subject, found.item, approved=approve, who=who, why=why)
    if approve and not deletions.is_deleted(connection, subject.what(found.item)):
        subject.approved(services, connection, found.item)


def report(services: Services, subject: Subject, item: int, *, reporter: str, why: str) -> tuple[bool, bool]:
    """Count a report, once from each reporter. What a person approved is not held back by further ones.

    Args:
        reporter: tells users apart. Only a digest of it is kept.

    Returns:
        whether it was counted, and whether the thing is held back now.

    Raises:
        NotFound, Deleted: it is not there.
    """
    ensure(services, subject, item)
    with transaction(services.engine) as connection:
        found = verdicts.find(connection, subject.name, item, lock=True)
        assert found is not None  # noqa: S101 - as ensured
        subject.facts(connection, item)  # raises where it was deleted since it got its row
        digests = deletions.reporter_digests(services.settings.digest_keys, reporter)
        values = {"kind": subject.name, "item": item, "reporters": digests, "reporter": digests[0], "why": why}
        counted = bool(connection.execute(_ADD, values).rowcount)
        reports = found.reports + counted
        connection.execute(text("update verdicts set reports = :n where id = :id"), {"id": found.id, "n": reports})
        enough = services.settings.moderation != "off" and reports >= services.settings.reports_to_hold
        # Held, and neither by earlier reports nor only until there is a verdict.
        decided = found.holding and found.decided_by not in {None, verdicts.REPORTS}
        if not (counted and enough) or found.by_person or decided:
            return counted, found.holding
        words = f"{reports} {'report' if reports == 1 else 'reports'}. The last one: {why}"
        connection.execute(_HOLD, {"id": found.id, "who": verdicts.REPORTS, "why": words})
        verdicts.hold(services, connection, subject, item, held=True)
        return counted, True


# What is in the trash is shown to nobody, and stands in the list again once it is restored.
_OPEN = "review_since is not null and not exists (select from deletions d where d.what = v.kind || '/' || v.item)"

# `id + 0` keeps the planner from the primary key: it would walk past all that is decided to find the few that wait.
_WAITING = text(f"""
    select {COLUMNS} from verdicts v where {_OPEN} and id > :after
    and (claimed_until is null or claimed_until < now()) order by id + 0 limit :limit
""")

_TAKE = text(f"""
    with room as (
        select :limit - count(*) as free from verdicts v
        where claimed_by = :reviewer and claimed_until > now() and {_OPEN}
    ), next as (
        select id from verdicts v where {_OPEN} and (claimed_until is null or claimed_until < now())
        order by review_since, id limit (select greatest(free, 0) from room) for update skip locked
    )
    update verdicts v set claimed_by = :reviewer, claimed_until = now() + make_interval(secs => :seconds)
    from next where v.id = next.id
""")

_TAKEN = text(f"""
    select {COLUMNS} from verdicts v where claimed_by = :reviewer and claimed_until > now() and {_OPEN}
    order by review_since, id
""")

_MADE = text("""
    select state, count(*) as n from verdicts
    where decided_at >= date_trunc('day', now(), 'UTC') and state <> 'waiting' group by state
""")

_OLDEST = text(f"""
    select count(*) as waiting, extract(epoch from now() - min(review_since)) as seconds
    from verdicts v where {_OPEN}
""")

_OTHERS = text(f"""
    select {COLUMNS} from verdicts v where user_id = :user and id <> :id
    and not exists (select from deletions d where d.kind = v.kind and d.item = v.item) order by id desc limit :limit
""")

_REMEMBER = text("""
    insert into decisions (digest, approved, what, reason, decided_by)
    select digest, :approved, :what, :why, :who from verdicts where id = :id
    on conflict (digest) do update set approved = excluded.approved, what = excluded.what, reason = excluded.reason,
        decided_by = excluded.decided_by, decided_at = now()
""")

_SAME = text(f"""
    select {COLUMNS} from verdicts v where digest = (select digest from verdicts where id = :id) and id <> :id
    and not (by_person and state = :state) order by id for update
""")

_ADD = text("""
    insert into reports (kind, item, reporter, reason) select :kind, :item, :reporter, :why
    where not exists (select from reports where kind = :kind and item = :item and reporter = any(:reporters))
    on conflict do nothing
""")

_HOLD = text("""
    update verdicts set state = 'held', holding = true, decided_by = :who, decided_at = now(), reason = :why,
        review_since = coalesce(review_since, now()), moved_at = now()
    where id = :id
""")
