"""The schema's history: from nothing to head by several processes at once, and from what an older release wrote."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from uuid import uuid4

import psycopg
import pytest
from psycopg import sql
from sqlalchemy import Engine, event, text

from imgpipe_orchestration.devstack.postgres import Postgres
from imgpipe_orchestration.errors import BackendUnavailable
from imgpipe_orchestration.storage.claims import Claims, Item, Queue
from imgpipe_orchestration.storage.kept_answers import KeyedRequest
from imgpipe_orchestration.storage.migrations import _LOCK, behind, pending, upgrade
from imgpipe_orchestration.storage.rows import connect, transaction

QUEUE = Queue("media")


@pytest.fixture
def empty(postgres_server: Postgres) -> Iterator[Engine]:
    """A database that no migration has seen."""
    name = f"empty_{uuid4().hex[:8]}"
    engine = connect(postgres_server.ensure_database(name))
    yield engine
    engine.dispose()
    with psycopg.connect(postgres_server.url, autocommit=True) as connection:
        connection.execute(sql.SQL("drop database {} with (force)").format(sql.Identifier(name)))


def test_a_database_is_behind_until_it_has_every_revision(empty: Engine) -> None:
    def is_behind() -> bool:
        with empty.begin() as connection:
            return behind(connection)

    assert is_behind()
    upgrade(empty, "0001")
    assert is_behind()
    upgrade(empty)
    assert not is_behind()


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


def test_a_database_that_a_newer_version_has_migrated_is_left_as_it_is(empty: Engine) -> None:
    """The way back after an upgrade: the old version starts, and the schema stays."""
    upgrade(empty)
    with empty.begin() as connection:
        connection.execute(text("update alembic_version set version_num = '9999'"))
    assert pending(empty) == []
    upgrade(empty)
    with empty.begin() as connection:
        assert not behind(connection)
        assert connection.scalar(text("select version_num from alembic_version")) == "9999"


def test_the_history_is_one_line_and_ends_with_nothing_pending(empty: Engine) -> None:
    missing = pending(empty)
    assert missing == sorted(missing)
    assert missing[0] == "0001"
    upgrade(empty, "0003")
    assert pending(empty) == missing[3:]
    upgrade(empty)
    assert pending(empty) == []
    upgrade(empty)


def test_two_processes_that_start_at_once_migrate_once(empty: Engine) -> None:
    errors: list[BaseException] = []

    def migrate() -> None:
        try:
            upgrade(empty)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=migrate) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
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


def test_a_queue_that_an_older_release_wrote_is_worked_off(empty: Engine) -> None:
    """As of revision 0003: every waiting item had its moment, and turns were counted per queue."""
    upgrade(empty, "0003")
    with transaction(empty) as connection:
        connection.execute(
            text("""
                insert into work_items
                    (queue, item_id, tenant, partition, state, due_at, turn, owner, attempt, failures)
                values ('media', 1, 'a', 'day', 'waiting', now() - interval '1 hour', 1, null, 0, 0),
                    ('media', 2, 'a', 'day', 'waiting', now() - interval '1 hour', 2, null, 1, 1),
                    ('media', 3, 'a', 'day', 'waiting', now() + interval '1 hour', 3, null, 1, 1),
                    ('media', 4, 'b', 'day', 'claimed', now() - interval '1 minute', 1, 'dead', 1, 0),
                    ('media', 5, 'b', 'day', 'claimed', now() + interval '1 hour', 2, 'alive', 1, 0),
                    ('media', 6, 'b', 'day', 'done', null, 2, null, 1, 0),
                    ('media', 7, 'b', 'day', 'failed', null, 2, null, 3, 3);
                insert into work_queues values ('media', 2);
                insert into work_tenants values ('media', 'a', 3), ('media', 'b', 2);
            """)
        )
    upgrade(empty)
    claims = Claims(empty)
    counts = claims.counts()["media"]
    assert (counts.waiting, counts.claimed, counts.done, counts.failed) == (3, 2, 1, 1)
    assert claims.due_partitions(QUEUE) == ["day"]
    with transaction(empty) as connection:
        claims.enqueue(connection, QUEUE, [Item(8, "c", "day")])
    taken = [claim.item_id for _ in range(2) for claim in claims.claim(QUEUE, "run", 10, partition="day")]
    assert sorted(taken) == [1, 2, 4, 8]
    assert [claim.item_id for claim in claims.owned(QUEUE, "alive")] == [5]
    assert claims.requeue(QUEUE) == [7]


def test_what_an_older_release_withdrew_is_not_among_what_somebody_ignores(empty: Engine) -> None:
    """As of revision 0027, where the state told no more: 1 was given up and ignored, 2 requeued and withdrawn."""
    upgrade(empty, "0027")
    with transaction(empty) as connection:
        connection.execute(
            text("""
                insert into work_items (queue, item_id, state, turn, error, error_code) values
                    ('media', 1, 'ignored', 1, 'cut off', 'bad-image'), ('media', 2, 'ignored', 2, 'cancelled', null);
                insert into work_attempts (queue, item_id, attempt, owner, outcome, error, error_code)
                select 'media', n, 1, 'run', 'failed', 'cut off', 'bad-image' from generate_series(1, 2) n;
            """)
        )
    upgrade(empty)
    claims = Claims(empty)
    assert [letter.item_id for letter in claims.failures(ignored=True)] == [1]
    assert not claims.find(QUEUE, 2).dismissed


def test_a_gateway_of_the_version_before_finds_and_keeps_its_answers(empty: Engine) -> None:
    """Uploads under an Idempotency-Key go to old and new gateways while an upgrade is on its way."""
    keep = text("""
        insert into listing_answers (uploader, idempotency_key, request_sha256, answer)
        values ('7', :key, 'abc', '{"n": 1}') on conflict do nothing
    """)
    upgrade(empty, "0025")
    with empty.begin() as before:
        before.execute(keep, {"key": "old"})
    upgrade(empty)
    with empty.begin() as beside:
        assert beside.execute(keep, {"key": "old"}).rowcount == 0
        assert beside.execute(keep, {"key": "new"}).rowcount == 1
        asked = "select idempotency_key from listing_answers where uploader = '7' order by 1"
        assert list(beside.scalars(text(asked))) == ["new", "old"]
    for key in ("old", "new"):
        assert KeyedRequest(empty, "listings", key, "abc", caller="7").given_before() == {"n": 1}


def test_what_was_spent_by_day_is_the_sum_of_the_uses_also_of_earlier_ones(empty: Engine) -> None:
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
    upgrade(empty, "0026")
    with empty.begin() as connection:
        connection.execute(use)
    upgrade(empty)
    with empty.begin() as connection:
        expected = connection.execute(by_hand).all()
        assert len(expected) == 30
        assert connection.execute(summed).all() == expected
        connection.execute(use)
        assert connection.execute(summed).all() == connection.execute(by_hand).all() != expected
