"""The schema's history: from nothing to head by several processes at once, and what is refused."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from uuid import uuid4

import psycopg
import pytest
from psycopg import sql
from sqlalchemy import Engine, event, text

from imgpipe_orchestration.devstack.postgres import Postgres
from imgpipe_orchestration.errors import BackendUnavailable
from imgpipe_orchestration.storage.migrations import _LOCK, behind, pending, upgrade
from imgpipe_orchestration.storage.rows import connect
from imgpipe_orchestration_tests.parts import ensure_database


@pytest.fixture
def empty(postgres_server: Postgres) -> Iterator[Engine]:
    """A database that no migration has seen."""
    name = f"empty_{uuid4().hex[:8]}"
    engine = connect(ensure_database(postgres_server, name))
    yield engine
    engine.dispose()
    with psycopg.connect(postgres_server.url, autocommit=True) as connection:
        connection.execute(sql.SQL("drop database {} with (force)").format(sql.Identifier(name)))


def test_a_database_is_behind_until_it_has_the_last_revision_or_one_of_a_newer_version(empty: Engine) -> None:
    """The way back after an upgrade: the old version starts, and the schema stays."""

    def is_behind() -> bool:
        with empty.begin() as connection:
            return behind(connection)

    missing = pending(empty)
    assert missing == sorted(missing) and is_behind()
    upgrade(empty, missing[0])
    assert pending(empty) == missing[1:] and is_behind()
    for _ in range(2):
        upgrade(empty)
        assert pending(empty) == [] and not is_behind()
    with empty.begin() as connection:
        connection.execute(text("update alembic_version set version_num = '9999'"))
    assert pending(empty) == [] and not is_behind()
    upgrade(empty)
    with empty.begin() as connection:
        assert connection.scalar(text("select version_num from alembic_version")) == "9999"


def test_a_server_without_pgvector_is_named_before_anything_is_made(empty: Engine) -> None:
    with empty.begin() as connection:
        connection.execute(
            text(
                "create view pg_available_extension_versions as"
                " select 'plpgsql' as name, true as superuser, false as trusted"
            )
        )
        connection.execute(text(f"alter database {empty.url.database} set search_path = public, pg_catalog"))
    empty.dispose()
    with pytest.raises(BackendUnavailable, match="no extension pgvector"):
        upgrade(empty)
    with empty.begin() as connection:
        assert connection.scalar(text("select to_regclass('alembic_version')")) is None


def test_two_processes_that_start_at_once_migrate_once(empty: Engine) -> None:
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(upgrade, [empty] * 3))
    assert pending(empty) == []


def test_a_migration_may_take_longer_than_a_statement_otherwise(empty: Engine) -> None:
    """The wait for another process that migrates is one of its statements."""
    impatient = connect(empty.url.render_as_string(hide_password=False))

    @event.listens_for(impatient, "connect")
    def limit(connection: psycopg.Connection, _: object) -> None:
        connection.execute("set statement_timeout = 200")
        connection.commit()

    with empty.begin() as migrating:
        migrating.execute(text("select pg_advisory_xact_lock(:key)"), {"key": _LOCK})
        other = threading.Thread(target=upgrade, args=(impatient,))
        other.start()
        other.join(1)
        assert other.is_alive()
    other.join()
    impatient.dispose()
    assert pending(empty) == []


def test_a_database_of_an_earlier_commit_is_refused_in_words_and_left_alone(empty: Engine) -> None:
    with empty.begin() as connection:
        connection.execute(text("create table alembic_version (version_num text)"))
        connection.execute(text("insert into alembic_version values ('0033')"))
    for migrate in (upgrade, pending):
        with pytest.raises(BackendUnavailable, match=r"revision 0033, which is too old .* with --data"):
            migrate(empty)
    with empty.begin() as connection:
        assert connection.scalar(text("select to_regclass('work_items')")) is None


def test_what_was_spent_by_day_is_the_sum_of_the_uses(engine: Engine) -> None:
    use = text("""
        insert into paid_call_uses (key, at, outcome, pipeline, item, provider, operation, model, standin, input_tokens,
            output_tokens, cost_usd, seconds, error)
        select 'k', now() - make_interval(days => n % 3), (array['bought', 'reused', 'failed', 'lost'])[1 + n % 4],
            'p' || n % 2, 'i', 'openai', 'o', 'm' || n % 5, n % 7 = 0, n, 2 * n, nullif(n % 6, 0) * 0.001, n,
            case when n % 8 = 0 then 'of no use' end
        from generate_series(1, 500) n
    """)
    summed = text("""
        select day, pipeline, provider, model, sum(bought), sum(reused), sum(failed), sum(lost), sum(standin),
            sum(unknown_cost), sum(input_tokens), sum(output_tokens), sum(cost_usd), sum(seconds)
        from spending_days group by 1, 2, 3, 4 order by 1, 2, 4
    """)
    by_hand = text("""
        select (at at time zone 'UTC')::date as day, pipeline, provider, model,
            count(*) filter (where outcome = 'bought') as bought, count(*) filter (where outcome = 'reused') as reused,
            count(*) filter (where outcome = 'failed' or outcome = 'bought' and error is not null) as failed,
            count(*) filter (where outcome = 'lost') as lost,
            count(*) filter (where outcome = 'bought' and standin) as standin,
            count(*) filter (where outcome = 'bought' and cost_usd is null) as unknown_cost,
            sum(input_tokens) as input_tokens, sum(output_tokens) as output_tokens,
            coalesce(sum(cost_usd), 0) as cost_usd,
            coalesce(sum(seconds) filter (where outcome = 'bought'), 0) as seconds
        from paid_call_uses group by 1, 2, 3, 4 order by day, pipeline, model
    """)
    with engine.begin() as connection:
        for _ in range(2):
            connection.execute(use)
            assert connection.execute(summed).all() == connection.execute(by_hand).all()
        assert len(connection.execute(summed).all()) == 30


def test_reports_of_failed_uploads_wait_in_the_queue_that_settles_them(empty: Engine) -> None:
    upgrade(empty, "0048")
    with empty.begin() as connection:
        known = "('media_cleanups', 1, 'failed', 1), ('media_cleanups', 2, 'failed', 2), ('media_urls', 2, 'done', 1)"
        connection.execute(text(f"insert into work_items (queue, item_id, state, turn) values {known}"))
    upgrade(empty)
    with empty.begin() as connection:
        assert connection.execute(text("select queue, item_id from work_items order by item_id")).all() == [
            ("media_urls", 1),
            ("media_urls", 2),
        ]
