"""The rows of verdicts: asking for one, writing it down, and holding the thing back meanwhile.

(none) ──ask──► waiting ──judged──► clear | flagged | held ──a person──► approved | rejected
                   └── the same bytes were decided on before ──────────────────▲
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, text

from imgpipe_orchestration.lifecycle import cdn, trash
from imgpipe_orchestration.moderation import model
from imgpipe_orchestration.moderation.model import State, Subject
from imgpipe_orchestration.storage import deletions
from imgpipe_orchestration.storage import queues as types
from imgpipe_orchestration.storage.claims import Item, Queue
from imgpipe_orchestration.wiring.services import Services

REPORTS = "reports"
"""Who decided that something is held that people reported."""
SOON = 20.0
"""Seconds before the queue's own run takes up what the run that asked is judging at that moment."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """One row of `verdicts`."""

    id: int
    kind: str
    item: int
    user_id: int | None
    state: State
    holding: bool
    by_person: bool
    provider: str | None
    model: str | None
    scores: dict[str, float]
    categories: list[str]
    decided_by: str | None
    decided_at: datetime | None
    reason: str | None
    reports: int
    review_since: datetime | None

    def shown(self) -> dict[str, Any] | None:
        """The verdict for callbacks and analyses; None while there is none."""
        if self.state is State.WAITING and not self.holding:
            return None
        return {
            "state": "held" if self.state is State.WAITING else self.state.value,
            "provider": self.provider,
            "model": self.model,
            "scores": self.scores,
            "categories": self.categories,
            "decided_by": self.decided_by,
            "decided_at": self.decided_at.isoformat() if self.decided_at else None,
            "reason": self.reason or ("It has not been judged yet." if self.state is State.WAITING else None),
        }


COLUMNS = ", ".join(f"v.{name}" for name in Verdict.__slots__)


def verdict(row: Row[Any]) -> Verdict:
    """A row of COLUMNS."""
    return Verdict(**{**row._mapping, "state": State(row.state)})


def _follow(connection: Connection, ids: Sequence[int], state: types.State, error: str | None) -> None:
    """What cannot be judged stays as it is: what is held waits for a person, and is asked for again."""
    if error is not None:
        not_judged(connection, ids, error)


def not_judged(connection: Connection, ids: Sequence[int], why: str) -> None:
    """Note why there is no verdict yet."""
    connection.execute(_NOT_JUDGED, {"ids": list(ids), "error": why})


JUDGE = Queue("moderation", max_attempts=1000, mirror=_follow)
"""What is to be judged; item ids are those of `verdicts`. A provider may be away for days."""


def find(connection: Connection, kind: str, item: int, *, lock: bool = False) -> Verdict | None:
    """The verdict on a thing; with `lock` it stays as it is until the transaction ends."""
    query = f"select {COLUMNS} from verdicts v where kind = :kind and item = :item {'for update' if lock else ''}"
    row = connection.execute(text(query), {"kind": kind, "item": item}).one_or_none()
    return None if row is None else verdict(row)


def holding(connection: Connection, kind: str, items: Sequence[int]) -> list[Verdict]:
    """The verdicts that hold back some of these things."""
    query = text(f"select {COLUMNS} from verdicts v where kind = :kind and item = any(:items) and holding")
    return [verdict(row) for row in connection.execute(query, {"kind": kind, "items": list(items)})]


def shown(connection: Connection, kind: str, item: int) -> dict[str, Any] | None:
    """The verdict on a thing for callbacks and analyses."""
    found = find(connection, kind, item)
    return None if found is None else found.shown()


def ask(
    services: Services,
    connection: Connection,
    subject: Subject,
    item: int,
    *,
    user_id: int | None,
    sha256: str,
    holding: bool | None = None,
) -> int | None:
    """Ask for a verdict, once; takes over what a person decided of the same bytes. Do this last in a transaction.

    Args:
        holding: whether it is held back until its verdict, as what is held already is; by default as MODERATION says.

    Returns:
        the id of the verdict that is to be judged now, or None.
    """
    mode = services.settings.moderation
    holding = holding or (holding is None and mode == "hold") or _is_held(connection, subject, item)
    if mode == "off" and not holding:
        return None
    number = add(services, connection, subject, item, user_id=user_id, sha256=sha256, holding=holding)
    if number is None:  # asked before, or only reported
        number = connection.scalar(_STILL_WAITING, {"kind": subject.name, "item": item, "holding": holding})
    if number is None:
        return None
    if _taken_over(services, connection, subject, item, number):
        return None
    if holding:
        hold(services, connection, subject, item, held=True)
    if mode == "off" or not services.models.choices("moderate"):
        if holding:
            not_judged(connection, [number], "No provider is asked: a person decides.")
        return None
    services.claims.enqueue(connection, JUDGE, [Item(number, "" if user_id is None else str(user_id))], delay=SOON)
    return number


def _is_held(connection: Connection, subject: Subject, item: int) -> bool:
    """Whether a thing is held, as it may be since another MODERATION."""
    query = f"select held from {subject.table} where id = :id"
    return bool(subject.table and connection.scalar(text(query), {"id": item}))


def _taken_over(services: Services, connection: Connection, subject: Subject, item: int, number: int) -> bool:
    """Whether a person has decided on the same bytes, which holds for this thing as well from now on."""
    found = connection.execute(_DECIDED, {"id": number}).one_or_none()
    if found is None:
        return False
    words = f"Its bytes are those of {found.what}. {found.reason}".strip()
    decide(services, connection, subject, item, approved=found.approved, who=found.decided_by, why=words)
    return True


def add(
    services: Services,
    connection: Connection,
    subject: Subject,
    item: int,
    *,
    user_id: int | None,
    sha256: str,
    holding: bool = False,
) -> int | None:
    """The row of a thing that has none; returns its id, or None where it has one or the thing is purged."""
    digests = [deletions.digest(secret, f"bytes {sha256}") for secret in services.settings.digest_keys]
    values = {"kind": subject.name, "item": item, "user_id": user_id, "digests": digests, "holding": holding}
    values["what"] = subject.what(item)
    number: int | None = connection.scalar(_ASK, values)
    return number


def decide(
    services: Services, connection: Connection, subject: Subject, item: int, *, approved: bool, who: str, why: str
) -> None:
    """Write down what a person decided. Show what was approved; hold back and trash what was rejected: taken out of the
    trash by its owner, it is still held."""
    state = State.APPROVED if approved else State.REJECTED
    values = {"kind": subject.name, "item": item, "state": state.value, "who": who, "why": why or None}
    connection.execute(_DECIDE, values)
    hold(services, connection, subject, item, held=not approved)
    thing = item if subject.table else subject.published(connection, item)
    if not approved and thing is not None and not deletions.is_deleted(connection, subject.what(item)):
        subject.rejected(services, connection, item)
        days = services.settings.trash_days if subject.kind.resumed else 0  # what cannot be restored goes at once
        words = f"{deletions.REJECTED}: {why}" if why else deletions.REJECTED
        trash.put(services, connection, subject.kind, [thing], who=who, why=words, days=days)


def hold(services: Services, connection: Connection, subject: Subject, item: int, *, held: bool) -> None:
    """Hold a thing back, or show it; gateways learn of it as they do of a deletion."""
    if not subject.table:
        return
    query = text(f"update {subject.table} set held = :held where id = :id and held <> :held")
    if connection.execute(query, {"id": item, "held": held}).rowcount and held and subject.kind.tag:
        cdn.order(services, connection, [f"{subject.kind.tag}{item}"])


def judged(
    services: Services,
    connection: Connection,
    subject: Subject,
    found: Verdict,
    *,
    provider: str,
    answered_by: str,
    scores: Mapping[str, float],
) -> None:
    """Write down what a model found. What a person decided, or reports hold, it only adds its scores to."""
    categories = model.over(services.settings, scores)
    values = {"id": found.id, "provider": provider, "model": answered_by, "scores": json.dumps(dict(scores))}
    row = connection.execute(_SCORED, {**values, "categories": categories}).one_or_none()
    if row is None or row.by_person or row.decided_by == REPORTS:
        return
    # A decision that was not committed yet when this was asked for did not see it either.
    if _taken_over(services, connection, subject, found.item, found.id):
        return
    holding = services.settings.moderation == "hold" and bool(categories)
    state = State.CLEAR if not categories else State.HELD if holding else State.FLAGGED
    why = ", ".join(f"{name} {scores[name]:.2f}" for name in categories) or None
    connection.execute(_JUDGED, {"id": found.id, "state": state.value, "holding": holding, "who": provider, "why": why})
    hold(services, connection, subject, found.item, held=holding)
    if found.holding and not holding and not deletions.is_deleted(connection, subject.what(found.item)):
        subject.approved(services, connection, found.item)


_ASK = text("""
    insert into verdicts (kind, item, user_id, digest, holding)
    select :kind, :item, cast(:user_id as bigint), coalesce(
        (select digest from decisions where digest = any(:digests) limit 1), (cast(:digests as uuid[]))[1]), :holding
    where not exists (select from deletions where what = :what and purging_at is not null)
    on conflict (kind, item) do nothing returning id
""")

_STILL_WAITING = text("""
    update verdicts set holding = holding or :holding
    where kind = :kind and item = :item and state = 'waiting' returning id
""")

_DECIDED = text("""
    select d.approved, d.what, d.reason, d.decided_by from decisions d join verdicts v using (digest) where v.id = :id
""")

_NOT_JUDGED = text("""
    update verdicts set reason = :error, state = case when holding then 'held' else state end,
        review_since = case when holding then coalesce(review_since, now()) end, moved_at = now()
    where id = any(:ids) and not by_person and decided_by is null
""")

_DECIDE = text("""
    update verdicts set state = :state, by_person = true, holding = :state = 'rejected', decided_by = :who,
        decided_at = now(), reason = :why, review_since = null, claimed_by = null, claimed_until = null,
        moved_at = now()
    where kind = :kind and item = :item
""")

_SCORED = text("""
    update verdicts set provider = :provider, model = :model, scores = cast(:scores as jsonb), categories = :categories
    where id = :id returning by_person, decided_by
""")

_JUDGED = text("""
    update verdicts set state = :state, holding = :holding, decided_by = :who, decided_at = now(), reason = :why,
        review_since = case when :state <> 'clear' then coalesce(review_since, now()) end, moved_at = now()
    where id = :id
""")
