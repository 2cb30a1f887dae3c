"""Deletes old rows, and holds the purges that belong to no single feature.

Purges work in short batches so that they never block a worker. Each run deletes a limited number of rows; the next run
continues.
"""

from collections.abc import Callable, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Engine, text

from imgpipe_orchestration.storage.rows import transaction

BATCH = 1000
"""Rows removed by one transaction."""
MOST = 1_000_000
"""Rows of one kind removed by one run."""
KEPT_DAYS = 1
"""How long answers under Idempotency-Keys are kept. Clients repeat a request within minutes; Stripe keeps answers for
a day, too."""


def purge(engine: Engine, days: float, account_days: float) -> dict[str, int]:
    """Remove what is `days` old: items that are done or ignored, attempts, job instances; and uses of paid calls of
    `account_days`. Returns how many rows of each kind.

    Dead letters and their attempts stay until somebody requeues or ignores them. Paid answers stay, so that none is
    bought again, except embeddings without a use: what somebody typed into the search has 33 kB, and costs a thousandth
    of a cent.
    """
    removed = {
        "items": in_batches(engine, _ITEMS, days),
        "attempts": in_batches(engine, _ATTEMPTS, days),
        "job_instances": in_batches(engine, _JOB_INSTANCES, days),
        "kept_answers": in_batches(engine, _KEPT_ANSWERS, KEPT_DAYS),
        "lost_calls": in_batches(engine, _LOST_CALLS, days=1),
        "paid_call_uses": in_batches(engine, _PAID_CALL_USES, account_days),
    }
    in_batches(engine, _EMBEDDINGS, account_days)
    in_batches(engine, _TURNS, days)
    with transaction(engine) as connection:
        connection.execute(_COMPACT)
        connection.execute(_SERVED)
    return removed


def in_batches(
    engine: Engine,
    statement: sa.TextClause,
    days: float,
    limit: int = MOST,
    *,
    forget: Callable[[Sequence[Any]], None] | None = None,
) -> int:
    """Remove up to `limit` rows by a statement with the parameters `batch` and maybe `days`; returns how many.

    Args:
        forget: called after each commit with the values that the statement returns.
    """
    removed = 0
    while removed < limit:
        batch = min(BATCH, limit - removed)
        with transaction(engine) as connection:
            result = connection.execute(statement, {"days": days, "batch": batch})
            count = result.rowcount
            gone = result.scalars().all() if forget else ()
        if forget is not None:
            forget(gone)
        removed += count
        if count < batch:
            break
    return removed


def old_rows(table: str, *, ended: str, key: str = "id", condition: str = "true", returning: str = "") -> sa.TextClause:
    """A statement for `in_batches`, oldest rows first.

    Args:
        ended: the column with the time that makes a row old.
        key: the columns of the primary key.
        condition: must also be true for a row `t` to be removed.
    """
    return text(f"""
        delete from {table} where ({key}) in (
            select {key} from {table} t where {condition} and {ended} < now() - make_interval(secs => :days * 86400)
            order by {ended} limit :batch for update skip locked)
        {f"returning {returning}" if returning else ""}
    """)


_ITEMS = text("""
    with old as (
        select w.queue, w.item_id from (select distinct queue from work_counts) as q
        cross join lateral (
            select queue, item_id from work_items
            where queue = q.queue and state in ('done', 'ignored')
            and updated_at < now() - make_interval(secs => :days * 86400)
            order by updated_at limit :batch for update skip locked) as w
        limit :batch
    ),
    theirs as (
        delete from work_attempts a using old where a.queue = old.queue and a.item_id = old.item_id
    )
    delete from work_items w using old where w.queue = old.queue and w.item_id = old.item_id
""")

_ATTEMPTS = old_rows(
    "work_attempts",
    ended="ended_at",
    condition="""not exists (
        select from work_items w where w.queue = t.queue and w.item_id = t.item_id and w.state = 'failed')""",
)

_JOB_INSTANCES = old_rows("job_instances", ended="finished_at", condition="status in ('completed', 'failed')")

_KEPT_ANSWERS = old_rows("kept_answers", key="route, caller, idempotency_key", ended="created_at")

_PAID_CALL_USES = old_rows("paid_call_uses", ended="at")

# A buyer whose lease ended a day ago was killed: no call takes so long, nor does a buyer wait so long for the database.
_LOST_CALLS = text("""
    with lost as (delete from paid_calls where state = 'started' and bought_for is null
        and lease_until < now() - make_interval(secs => :days * 86400) returning *)
    insert into paid_call_uses (key, at, outcome, pipeline, item, tenant, provider, operation, model)
    select key, lease_until, 'lost', pipeline, '', tenant, provider, operation, model from lost
""")

_EMBEDDINGS = old_rows(
    "paid_calls",
    key="key",
    ended="committed_at",
    condition="""operation = 'embedding' and state = 'committed'
        and not exists (select from paid_call_uses u where u.key = t.key)""",
)

_COMPACT = text("select work_counts_add_up()")

# A turn that has already been served means the same as no row. Rows in use are skipped until next time.
_TURNS = text("""
    delete from work_turns where (queue, partition, tenant, flow) in (
        select t.queue, t.partition, t.tenant, t.flow from work_turns t
        join work_served s on s.queue = t.queue and s.partition = t.partition
            and s.lane = case when t.flow = 'again' then 1 else 0 end
        where t.last_turn <= s.turn limit :batch for update of t skip locked)
""")

_SERVED = text("""
    delete from work_served s where not exists (
        select from work_turns t where t.queue = s.queue and t.partition = s.partition)
        and not exists (select from work_items w where w.queue = s.queue and w.partition = s.partition
            and w.state in ('waiting', 'claimed'))
""")
