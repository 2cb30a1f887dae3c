"""What was deleted: the trash, and tombstones of what was purged.

    (none) ──add──► trashed ──begin──► being purged ──end──► purged (a tombstone)
       ▲               │
       └────remove─────┘

A row is found by `what`, the name under which the ledger of paid calls knows the thing as well: no call is begun for
what has a row. Times are the database's.
"""

import hashlib
import hmac
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Row, text

from imgpipe_orchestration.errors import Gone
from imgpipe_orchestration.storage.claims import Claims, Item
from imgpipe_orchestration.storage.queues import Queue

PURGES = Queue("purges", max_attempts=10)
"""What is to be removed for good; item ids are those of `deletions`."""

DELETED = "It was deleted."
REJECTED = "rejected"
"""How the reason begins for which something rejected is in the trash."""


class Deleted(Gone):
    """It was deleted, and is not shown any more."""


class Purged(Gone):
    """It was deleted for good, and cannot be restored."""


@dataclass(frozen=True, slots=True)
class Thing:
    """Something to delete. `addresses` are its URLs' paths and object keys, `queues` those it was withdrawn from, which
    it goes back to when it is restored."""

    what: str
    item: int
    user_id: int | None
    addresses: Sequence[str] = ()
    queues: Sequence[str] = ()


Deletion = Row[Any]
"""A row of `deletions`, and its `state`: `trashed`, or `purged` from the beginning of its purge on."""

_COLUMNS = "d.*, case when d.purging_at is null then 'trashed' else 'purged' end as state"


def digest(secret: str, address: str) -> UUID:
    """A keyed digest of a URL's path or an object key: without `secret` nobody can tell which path or key it was."""
    return UUID(bytes=hmac.digest(secret.encode(), b"address " + address.encode(), hashlib.sha256)[:16])


def reporter_digests(secrets: Sequence[str], reporter: str) -> list[UUID]:
    """What `reports` keeps of who reported something, by each of these keys: `user 7` is a user."""
    return [digest(secret, f"reporter {reporter}") for secret in secrets]


def add(
    connection: Connection,
    claims: Claims,
    kind: str,
    things: Sequence[Thing],
    *,
    who: str,
    why: str,
    days: float,
    secret: str,
) -> list[str]:
    """Put things into the trash for `days`; those that should be purged at once (0) are enqueued for it, also when
    they were in the trash already. One that is there keeps its date otherwise, and its reason unless that was only a
    rejection. Of their addresses only digests are kept, made with `secret`. Returns the names of those that nobody had
    deleted before; of what is purged, of all."""
    values = {
        "kind": kind,
        "who": who,
        "why": why,
        "days": days,
        "things": json.dumps(
            [{**asdict(one), "addresses": [str(digest(secret, at)) for at in one.addresses]} for one in things]
        ),
    }
    added = list(connection.scalars(_ADD, values))
    if days <= 0:
        added = [thing.what for thing in things]
        hasten(connection, claims, added)
    return added


def hasten(connection: Connection, claims: Claims, whats: Sequence[str]) -> None:
    """Purge things of the trash at once."""
    ids = list(connection.scalars(_HASTEN, {"whats": list(whats)}))
    claims.enqueue(connection, PURGES, [Item(id_) for id_ in ids], again=True)


def order_due(connection: Connection, claims: Claims, *, limit: int) -> int:
    """Enqueue the purge of what has been in the trash for long enough, up to `limit`; returns how many."""
    ids = list(connection.scalars(_DUE, {"limit": limit}))
    return claims.enqueue(connection, PURGES, [Item(id_) for id_ in ids], again=True)


def find(connection: Connection, what: str, *, lock: bool = False) -> Deletion | None:
    """The deletion of a thing, if it was deleted; with `lock` it stays as it is until the transaction ends."""
    query = text(f"select {_COLUMNS} from deletions d where what = :what {'for update' if lock else ''}")
    return connection.execute(query, {"what": what}).one_or_none()


def lock(connection: Connection, whats: Sequence[str]) -> list[int]:
    """Let the deletions of things that can be restored stay as they are until the transaction ends; returns the items
    of these."""
    # Not of those that are being purged: a purge locks them last.
    query = text("select item from deletions where what = any(:whats) and purging_at is null order by id for update")
    return list(connection.scalars(query, {"whats": list(whats)}))


def is_deleted(connection: Connection, what: str) -> bool:
    """Whether a thing was deleted."""
    return connection.scalar(text("select 1 from deletions where what = :what"), {"what": what}) is not None


def was_at(connection: Connection, secrets: Sequence[str], address: str, *, user: int | None = None) -> bool:
    """Whether something (of a user) was deleted that had this address, of which a digest was kept by one of these
    keys."""
    query = text("""
        select 1 from deletions where addresses && cast(:digests as uuid[])
        and (cast(:user as bigint) is null or user_id = :user) limit 1
    """)
    values = {"digests": [digest(secret, address) for secret in secrets], "user": user}
    return connection.scalar(query, values) is not None


def remove(connection: Connection, claims: Claims, whats: Sequence[str]) -> Sequence[Deletion]:
    """Take things out of the trash. Those stay whose purge has begun or was ordered: their days there are over."""
    found = connection.execute(_RESTORABLE, {"whats": list(whats)}).all()
    values = {"ids": [one.id for one in found]}
    claims.withdraw(connection, PURGES, values["ids"], "It was restored.")
    connection.execute(text("delete from deletions where id = any(:ids)"), values)
    return found


def page(connection: Connection, kind: str, *, before: int | None = None, limit: int) -> Sequence[Deletion]:
    """The trash of a kind, newest first; `before` is the `id` of the last one of the previous page."""
    return connection.execute(_PAGE, {"kind": kind, "before": before, "limit": limit}).all()


def counts(connection: Connection) -> dict[str, int]:
    """How many things of each kind are in the trash."""
    return {row[0]: row[1] for row in connection.execute(text(f"select kind, count(*) {_IN_TRASH} group by kind"))}


def begin(connection: Connection, ids: Sequence[int]) -> Sequence[Deletion]:
    """The purge of these begins: from now on they cannot be restored. Returns those that are not purged yet."""
    return connection.execute(_BEGIN, {"ids": list(ids)}).all()


def end(connection: Connection, objects: Mapping[int, int]) -> None:
    """These are purged; `objects` says of each how many objects it had."""
    values = {"ids": list(objects), "objects": list(objects.values())}
    connection.execute(_END, values)


def of_user(connection: Connection, user_id: int, *, limit: int) -> list[int]:
    """The first deletions of a user's things that are not purged yet."""
    query = text("select id from deletions where user_id = :user and purged_at is null order by id limit :limit")
    return list(connection.scalars(query, {"user": user_id, "limit": limit}))


# --- what was paid for -----------------------------------------------------------------------------------------------


def forget_work(connection: Connection, queues: Iterable[str], ids: Sequence[int]) -> None:
    """Remove what queues know of items, with the texts of their errors."""
    values = {"queues": list(queues), "ids": list(ids)}
    for table in ("work_attempts", "work_items"):
        connection.execute(text(f"delete from {table} where queue = any(:queues) and item_id = any(:ids)"), values)


def forget_answers(connection: Connection, pipeline: str, items: Sequence[str]) -> None:
    """Remove the paid answers that were only used for these items (names as of `Buyer.item`). The uses stay with what
    they cost, without the words of their errors. Calls in a batch go when it is cancelled and its cost is known."""
    values = {"pipeline": pipeline, "items": list(items)}
    connection.execute(_FORGET_ANSWERS, values)
    connection.execute(_FORGET_ERRORS, values)


def forget_verdicts(connection: Connection, subject: str, ids: Sequence[int], *, parts: int) -> None:
    """Remove the verdicts on purged things, and the reports. What people decided of the bytes stays.

    Args:
        parts: the bits of an item that say which part of a thing it is, where things are judged in parts.
    """
    values = {"subject": subject, "ids": list(ids), "parts": parts}
    numbers = list(connection.scalars(text(f"delete from verdicts v using {_OF_THINGS} returning v.id"), values))
    forget_work(connection, ["moderation"], numbers)
    connection.execute(text(f"delete from reports v using {_OF_THINGS}"), values)


def hasten_verdicts(connection: Connection, subject: str, ids: Sequence[int], *, parts: int) -> None:
    """Let restored things be judged now, where that waits. The arguments are those of `forget_verdicts`."""
    connection.execute(_HASTEN_VERDICTS, {"subject": subject, "ids": list(ids), "parts": parts})


def forget_person(
    connection: Connection, user_id: int, queues: Sequence[str], pipelines: Sequence[str], *, secrets: Sequence[str]
) -> int:
    """Remove what shared tables know of a user: kept answers, jobs, verdicts, what they reported (not that somebody
    did), the tenant's name in some queues and in the uses of some pipelines' paid calls. Returns how many rows."""
    reporters = reporter_digests(secrets, f"user {user_id}")
    values = {"user": str(user_id), "queues": list(queues), "pipelines": list(pipelines), "reporters": reporters}
    return sum(connection.execute(statement, values).rowcount for statement in _FORGET_PERSON)


_ADD = text(f"""
    insert into deletions (what, kind, item, user_id, who, why, addresses, queues, purge_after)
    select what, :kind, item, user_id, :who, :why, addresses, queues, now() + make_interval(secs => :days * 86400)
    from jsonb_to_recordset(cast(:things as jsonb))
        as n (what text, item bigint, user_id bigint, addresses uuid[], queues text[])
    on conflict (what) do update set who = excluded.who, why = excluded.why
        where starts_with(deletions.why, '{REJECTED}') and not starts_with(excluded.why, '{REJECTED}')
    returning what
""")

_HASTEN = text("""
    update deletions set purge_after = least(purge_after, now()) where what = any(:whats) and purging_at is null
    returning id
""")

_DUE = text("""
    select id from deletions d where purging_at is null and purge_after <= now()
    and not exists (select from work_items w where w.queue = 'purges' and w.item_id = d.id
        and w.state in ('waiting', 'claimed', 'failed'))
    order by purge_after, id limit :limit
""")

_IN_TRASH = "from deletions d where purged_at is null and purge_after > now()"

_RESTORABLE = text(f"""
    select {_COLUMNS} from deletions d where what = any(:whats) and purging_at is null and purge_after > now()
    order by id for update
""")

_PAGE = text(f"""
    select {_COLUMNS} {_IN_TRASH} and kind = :kind
    and (cast(:before as bigint) is null or id < :before) order by id desc limit :limit
""")

_BEGIN = text(f"""
    with these as (
        select id from deletions where id = any(cast(:ids as bigint[])) and purged_at is null order by id for update
    )
    update deletions d set purging_at = coalesce(d.purging_at, now()) from these where d.id = these.id
    returning {_COLUMNS}
""")

_END = text("""
    update deletions d set purged_at = now(), objects = d.objects + n.objects
    from unnest(cast(:ids as bigint[]), cast(:objects as integer[])) as n (id, objects)
    where d.id = n.id and d.purged_at is null
""")

_FORGET_ANSWERS = text("""
    delete from paid_calls c using (
        select distinct key from paid_call_uses where pipeline = :pipeline and item = any(:items)) as mine
    where c.key = mine.key and (c.state <> 'started' or c.bought_for is null) and not exists (
        select from paid_call_uses u where u.key = c.key and (u.pipeline <> :pipeline or u.item <> all(:items))
        and u.outcome <> 'lost' and not exists (select from deletions d where d.purged_at is not null
            and d.what in (u.item, substring(u.item from '^(.*)/[^/]*$'))))
""")

_OF_THINGS = """
    unnest(cast(:ids as bigint[])) as t (id)
    where v.kind = :subject and v.item >= t.id << :parts and v.item < (t.id + 1) << :parts
"""

_HASTEN_VERDICTS = text(f"""
    update work_items w set due_at = now(), updated_at = now() from verdicts v, {_OF_THINGS}
    and w.queue = 'moderation' and w.item_id = v.id and w.state = 'waiting' and coalesce(w.due_at > now(), false)
""")

_FORGET_ERRORS = text("""
    update paid_call_uses set error = null
    where pipeline = :pipeline and item = any(:items) and error is not null
""")

_FORGET_PERSON = (
    text("delete from kept_answers where caller = :user"),
    text("delete from job_instances where user_id in (:user, 'user_' || :user)"),
    # Those that a worker asked for while the thing was purged.
    text("delete from verdicts where user_id = cast(:user as bigint)"),
    # What is held back by reports repeats the last one's words.
    text("""
        update verdicts v set reason = left(v.reason, -length(' The last one: ' || r.reason)) from reports r
        where r.reporter = any(:reporters) and (r.kind, r.item) = (v.kind, v.item) and v.decided_by = 'reports'
        and right(v.reason, length(r.reason) + 1) = ' ' || r.reason
    """),
    text("delete from reports where reporter = any(:reporters)"),
    text("""
        delete from work_attempts a using work_items w where w.queue = a.queue and w.item_id = a.item_id
        and w.tenant = :user and w.queue = any(:queues)
    """),
    text("delete from work_items where tenant = :user and queue = any(:queues)"),
    text("delete from work_turns where tenant = :user and queue = any(:queues)"),
    text("""
        update paid_call_uses set tenant = '', error = null where tenant = :user and pipeline = any(:pipelines)
    """),
    # Whose spending and budget these are cannot be told apart by pipeline; users and others have other names.
    text("""
        with gone as (delete from spending_tenants where tenant = :user returning *)
        insert into spending_tenants as t select '', day, bought, reused, cost_usd, saved_usd from gone
        on conflict (tenant, day) do update set bought = t.bought + excluded.bought,
            reused = t.reused + excluded.reused, cost_usd = t.cost_usd + excluded.cost_usd,
            saved_usd = t.saved_usd + excluded.saved_usd
    """),
    text("update paid_calls set tenant = '' where tenant = :user and pipeline = any(:pipelines)"),
    text("delete from budgets where scope = 'tenant:' || :user"),
    text("delete from budget_stops where scope = 'tenant:' || :user"),
)
