"""What retention reads: history that is kept costs it one look a night, however much of it there is."""

from __future__ import annotations

import pytest
from sqlalchemy import Engine, text

from imgpipe_orchestration.storage import history
from imgpipe_orchestration.storage.claims_sql import INDEXES_ONLY
from imgpipe_orchestration.storage.rows import transaction
from imgpipe_orchestration.vision_reports import retention as vision_reports
from imgpipe_orchestration_tests.plans import reading

ROWS = 3000
OLD = "now() - interval '90 days'"

KEPT = {
    "dead letters": (
        history._ATTEMPTS,
        f"""
            insert into work_items (queue, item_id, state, turn)
            select 'media', i, 'failed', i from generate_series(1, {ROWS}) i;
            insert into work_attempts (queue, item_id, attempt, owner, ended_at, outcome)
            select 'media', i, 1, 'run', {OLD}, 'failed' from generate_series(1, {ROWS}) i
        """,
        f"""
            insert into work_attempts (queue, item_id, attempt, owner, ended_at, outcome)
            select 'media', {ROWS} + i, 1, 'run', {OLD}, 'done' from generate_series(1, 10) i
        """,
    ),
    "executions that an analysis belongs to": (
        vision_reports._EXECUTIONS,
        f"""
            insert into vision_executions (trigger, status, finished_at)
            select 'manual', 'success', {OLD} from generate_series(1, {ROWS}) i;
            insert into vision_analyses (source, organization_id, vision_analysis_id, execution_id, created_day,
                documents) select 's', 'o', id, id, current_date, '' from vision_executions
        """,
        f"""
            insert into vision_executions (trigger, status, finished_at)
            select 'manual', 'success', {OLD} from generate_series(1, 10) i
        """,
    ),
    "batches that may be requeued": (
        vision_reports._BATCHES,
        f"""
            insert into vision_batches (organization_id, user_query, model, status, finished_at)
            select 'o', 'q', 'm', 'failed', {OLD} from generate_series(1, {ROWS}) i;
            insert into work_items (queue, item_id, state, turn)
            select 'vision_batches', id, 'failed', id from vision_batches
        """,
        f"""
            insert into vision_batches (organization_id, user_query, model, status, finished_at)
            select 'o', 'q', 'm', 'completed', {OLD} from generate_series(1, 10) i
        """,
    ),
    "uploads of batches that are kept": (
        vision_reports._ORPHANS,
        f"""
            insert into vision_uploads (image_id, organization_id, name, object_key, bytes, width, height, format,
                created_at) select gen_random_uuid(), 'o', 'n', '', 1, 1, 1, 'jpeg', {OLD}
                from generate_series(1, {ROWS}) i;
            insert into vision_batches (organization_id, user_query, model) values ('o', 'q', 'm');
            insert into vision_batch_images (batch_id, position, image_id)
            select b.id, u.id, u.image_id from vision_batches b, vision_uploads u
        """,
        f"""
            insert into vision_uploads (image_id, organization_id, name, object_key, bytes, width, height, format,
                created_at) select gen_random_uuid(), 'o', 'n', '', 1, 1, 1, 'jpeg', {OLD} from generate_series(1, 10) i
        """,
    ),
}


@pytest.mark.parametrize("kept", KEPT)
def test_no_page_reads_more_rows_than_it_has(engine: Engine, kept: str) -> None:
    page, stays, goes = KEPT[kept]
    with transaction(engine) as connection:
        connection.execute(text(stays))
        connection.execute(text(goes))
        for _ in range(20):
            connection.execute(text(goes.replace(OLD, "now()")))
    with transaction(engine) as connection:
        connection.execute(text("analyze"))
        connection.execute(INDEXES_ONLY)
        with reading(engine, "page as materialized") as read:
            for after in (ROWS // 2, ROWS):  # among what is kept, and among what is young
                connection.execute(page, {"days": 30, "after": after, "batch": 100, "most": 100})
        connection.rollback()
    assert 0 < max(read) <= 100
    assert history.in_pages(engine, page, 30, limit=4) == 4
    assert history.in_pages(engine, page, 30, limit=ROWS) == 6
    assert history.in_pages(engine, page, 30, limit=ROWS) == 0


def test_batches_stop_at_their_bound(engine: Engine) -> None:
    with transaction(engine) as connection:
        connection.execute(text("create table old as select generate_series(1, 10) as id"))
    batch = text("delete from old where id in (select id from old limit :batch)")
    assert history.in_batches(engine, batch, 30, limit=4) == 4
    assert history.in_batches(engine, batch, 30, limit=ROWS) == 6
    assert history.in_batches(engine, batch, 30, limit=ROWS) == 0
