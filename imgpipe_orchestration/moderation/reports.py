"""Reports of the public: counted, and from REPORTS_TO_HOLD on the thing is held back until a person has looked."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import text

from imgpipe_orchestration.moderation import review, verdicts
from imgpipe_orchestration.moderation.subjects import Subject
from imgpipe_orchestration.services import Services
from imgpipe_orchestration.storage import deletions
from imgpipe_orchestration.storage.rows import transaction


@dataclass(frozen=True, slots=True)
class Reported:
    """What became of a report."""

    counted: bool
    held: bool


def report(services: Services, subject: Subject, item: int, *, reporter: str, why: str) -> Reported:
    """Count a report, once from each reporter. What a person approved is not held back by further ones.

    Args:
        reporter: tells users apart. Only a digest of it is kept.

    Raises:
        NotFound, Deleted: it is not there.
    """
    review.ensure(services, subject, item)
    with transaction(services.engine) as connection:
        found = verdicts.find(connection, subject.name, item, lock=True)
        assert found is not None  # noqa: S101 - as ensured
        digest = deletions.digest(services.settings.secret_key, f"reporter {reporter}")
        values = {"kind": subject.name, "item": item, "reporter": digest, "why": why}
        counted = bool(connection.execute(_ADD, values).rowcount)
        reports = found.reports + counted
        values = {"id": found.id, "reports": reports}
        connection.execute(text("update verdicts set reports = :reports where id = :id"), values)
        mode, enough = services.settings.moderation, reports >= services.settings.reports_to_hold
        if counted and enough and mode != "off" and not found.by_person and not found.holding:
            words = f"{reports} people reported it. The last one: {why}"
            connection.execute(_HOLD, {"id": found.id, "who": verdicts.REPORTS, "why": words})
            verdicts.hold(services, connection, subject, item, held=True)
            return Reported(counted, held=True)
    return Reported(counted, held=found.holding)


_ADD = text("""
    insert into reports (kind, item, reporter, reason) values (:kind, :item, :reporter, :why) on conflict do nothing
""")

_HOLD = text("""
    update verdicts set state = 'held', holding = true, decided_by = :who, decided_at = now(), reason = :why,
        review_since = coalesce(review_since, now()), moved_at = now()
    where id = :id
""")
