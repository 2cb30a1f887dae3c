"""No statement reads the backlog."""

from typing import Any

import pytest
from sqlalchemy import Engine, TextClause, text

from imgpipe_orchestration.storage import backlog, claims_sql
from imgpipe_orchestration.storage.claims import Claims
from imgpipe_orchestration.storage.rows import transaction
from imgpipe_orchestration_tests.plans import rows_read
from imgpipe_orchestration_tests.storage.claims.shorthand import QUEUE, finish, put

Statement = tuple[TextClause, dict[str, Any]]


@pytest.mark.parametrize("analysed", [True, False])
def test_no_statement_reads_the_backlog_even_without_statistics(claims: Claims, engine: Engine, analysed: bool) -> None:
    """A table that was analysed while it was all but empty, or never, and then grew: the worst the planner can know."""
    with transaction(engine) as connection:
        connection.execute(text("alter table work_items set (autovacuum_enabled = false)"))
    put(claims, 1)
    if analysed:
        with transaction(engine) as connection:
            connection.execute(text("analyze work_items"))
    for tenant in range(10):
        put(claims, *range(1000 * tenant, 1000 * tenant + 1000), tenant=str(tenant), partition="day")
    put(claims, *range(20_000, 25_000), partition="day", delay=3600)
    put(claims, *range(30_000, 50_000))
    with transaction(engine) as connection:
        ended = "update work_items set state = case when item_id < 40000 then 'done' else 'failed' end"
        connection.execute(text(f"{ended} where item_id >= 30000"))
    for claim in claims.claim(QUEUE, "run", 200, partition="day"):
        if claim.item_id % 2:
            finish(claims, claim)

    key = {"queue": QUEUE.name, "partition": "day", "owner": "run", "lease": 30}
    held = {"queue": QUEUE.name, "item_id": 2000, "owner": "run", "attempt": 1}
    lost = {"error": "", "code": ""}
    done = {"state": "done", "outcome": "done", "error": None, "code": None, "spent": 0, "pause": 0}
    some = {"queue": QUEUE.name, "ids": [5, 99_999]}
    put_in = {**some, "tenants": ["", ""], "partitions": ["", ""], "traces": ["", ""], "delay": 1}
    # Those of a claim, of a sensor's question and of the end of pauses, after INDEXES_ONLY; below those of whoever
    # looks at the queues.
    by_index: list[Statement] = [
        (claims_sql.DUE_PARTITIONS, {"queue": QUEUE.name, "limit": 10}),
        (claims_sql.MAKE_READY, {**key, **lost, "limit": 1000}),
        (claims_sql.TAKE, {**key, "lane": 0, "limit": 10}),
        (claims_sql.TAKE_OF_OTHERS, {**key, "lane": 0, "limit": 10, "but": ["0"]}),
        (claims_sql.TAKE_SUSPECTS, {**key, "limit": 10, "shrink": 4, "most": 5}),
        (claims_sql.SERVE, {**key, "lane": 0, "turn": 1}),
        (claims_sql.PUT_OFF, {"queue": QUEUE.name, "limit": 10}),
    ]
    as_planned: list[Statement] = [
        (claims_sql.ENQUEUE, put_in),
        (claims_sql.ENQUEUE_LATER, put_in),
        (claims_sql.RESTART, put_in),
        (claims_sql.TAKE_THESE, {**key, **some}),
        (claims_sql.FIND, {"queue": QUEUE.name, "item_id": 5}),
        (claims_sql.CHECK, held),
        (claims_sql.PROGRESS, {**held, "lease": 30}),
        (claims_sql.SETTLE, {**held, **done}),
        (claims_sql.HEARTBEAT, key),
        (claims_sql.OWNED, key),
        (claims_sql.TAKE_OVER, {**key, "new": "another"}),
        (claims_sql.RELEASE, {**key, **lost, "lost": False}),
        (claims_sql.REQUEUE, {**some, "states": ["failed"]}),
        (claims_sql.HASTEN, some),
        (claims_sql.IGNORE, some),
        (claims_sql.UNIGNORE, some),
        (claims_sql.WITHDRAW, {**some, "reason": "", "failed": True}),
    ]
    every = {id(one) for one in vars(claims_sql).values() if isinstance(one, TextClause)}
    assert {id(one) for one, _ in by_index + as_planned} == every - {id(claims_sql.INDEXES_ONLY)}
    by_index += [
        (backlog._COUNTS, {"stuck": 3600, "stuck_limit": 100, "average_over": 100, "heads": 20}),
        (backlog._HELD_UP, {"items": 100, "limit": 10}),
        *(
            (
                text(backlog._failures(one_queue=one_queue, paged=False, ignored=ignored)),
                {"queue": QUEUE.name, "limit": 10},
            )
            for one_queue in (True, False)
            for ignored in (True, False)
        ),
    ]
    for statement, values in by_index + as_planned:
        with engine.connect() as connection:
            if (statement, values) in by_index:
                connection.execute(claims_sql.INDEXES_ONLY)
            explained = connection.execute(text(f"explain (analyze, format json) {statement.text}"), values)
            rows = max(rows_read(explained.scalar_one()[0]["Plan"]))
            connection.rollback()
        assert rows <= 400, f"{rows} rows read by {statement.text}"
