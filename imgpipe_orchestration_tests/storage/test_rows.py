"""Connections: which URLs are taken, and what a database's absence looks like."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

import psycopg
import pytest
from sqlalchemy import Engine, text

from imgpipe_orchestration.devstack.ports import free_port
from imgpipe_orchestration.devstack.postgres import Postgres
from imgpipe_orchestration.errors import BackendUnavailable, NotMigrated, SettingsError
from imgpipe_orchestration.storage import rows
from imgpipe_orchestration.storage.rows import autocommit, connect, transaction
from imgpipe_orchestration_tests.cable import Cable
from imgpipe_orchestration_tests.devstack.running import wait_for
from imgpipe_orchestration_tests.parts import ensure_database


@pytest.mark.parametrize(
    ("url", "driver"),
    [
        ("postgres://u@h/d", "postgresql+psycopg"),
        ("postgresql://u@h/d", "postgresql+psycopg"),
        ("postgresql+psycopg2://u@h/d", "postgresql+psycopg"),
        ("mysql://u@h/d", "mysql+pymysql"),
        ("mariadb://u@h/d", "mariadb+pymysql"),
    ],
)
def test_every_usual_spelling_of_a_url_finds_its_driver(url: str, driver: str) -> None:
    assert connect(url).url.drivername == driver


@pytest.mark.parametrize("url", ["", "sqlite:///x", "oracle://h/d"])
def test_a_url_that_cannot_be_used_names_its_setting(url: str) -> None:
    with pytest.raises(SettingsError, match="PENDING_IMAGES_DATABASE_URL") as raised:
        connect(url, setting="PENDING_IMAGES_DATABASE_URL")
    assert raised.value.public.startswith("PENDING_IMAGES_DATABASE_URL")


def test_a_session_speaks_utc_and_plans_for_what_is_there(engine: Engine) -> None:
    with transaction(engine) as connection:
        assert connection.scalar(text("show timezone")) == "UTC"
        assert connection.scalar(text("show plan_cache_mode")) == "force_custom_plan"


@pytest.mark.parametrize("use", [transaction, autocommit])
def test_a_table_that_is_not_there_yet_needs_a_migration(use: Any, postgres_server: Postgres) -> None:
    empty = connect(ensure_database(postgres_server, "never_migrated"))
    with pytest.raises(NotMigrated, match="imgpipe migrate") as raised, use(empty) as connection:
        connection.execute(text("select 1 from work"))
    assert raised.value.detail == 'relation "work" does not exist'
    empty.dispose()


@pytest.mark.parametrize("scheme", ["postgresql", "mysql"])
def test_a_server_that_is_not_there(scheme: str) -> None:
    engine = connect(f"{scheme}://u:hunter2@127.0.0.1:{free_port()}/d")
    with pytest.raises(BackendUnavailable) as raised, transaction(engine):
        pytest.fail("connected to nothing")
    assert "hunter2" not in raised.value.public


def test_a_session_that_was_ended_under_us(engine: Engine, postgres_server: Postgres) -> None:
    with pytest.raises(BackendUnavailable), transaction(engine) as connection:
        pid = connection.scalar(text("select pg_backend_pid()"))
        with psycopg.connect(postgres_server.url, autocommit=True) as other:
            other.execute("select pg_terminate_backend(%s)", [pid])
        connection.execute(text("select 1"))
    with transaction(engine) as connection:
        assert connection.scalar(text("select 1")) == 1


def test_a_session_that_was_ended_in_the_pool(engine: Engine, postgres_server: Postgres) -> None:
    with transaction(engine) as connection:
        pid = connection.scalar(text("select pg_backend_pid()"))
    with psycopg.connect(postgres_server.url, autocommit=True) as other:
        other.execute("select pg_terminate_backend(%s, 10000)", [pid])
    with transaction(engine) as connection:
        assert connection.scalar(text("select pg_backend_pid()")) != pid


@pytest.fixture
def cable(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Cable, Engine]]:
    """A cable to PostgreSQL that can be cut, and an engine at its end whose patience is short."""
    for name, value in {"tcp_user_timeout": 1000, "keepalives_idle": 1, "keepalives_interval": 1}.items():
        monkeypatch.setitem(rows.LOST_AFTER, name, value)
    with Cable(engine.url.port or 0) as cable:
        far = connect(engine.url.set(port=cable.port).render_as_string(hide_password=False))
        with transaction(far) as connection:
            connection.execute(text("select 1"))
        yield cable, far
        far.dispose()


def test_a_server_that_vanished_without_a_word_holds_nobody(cable: tuple[Cable, Engine]) -> None:
    wire, far = cable
    wire.cut()
    with transaction(far) as connection:
        assert connection.scalar(text("select 1")) == 1


def test_a_server_that_vanishes_before_it_answers_is_away_and_holds_nobody(
    cable: tuple[Cable, Engine], engine: Engine
) -> None:
    wire, far = cable
    asked = "select 1 from pg_stat_activity where query = 'select pg_sleep(60)'"
    with ThreadPoolExecutor(1) as pool:

        def ask() -> None:
            with transaction(far) as connection:
                connection.execute(text("select pg_sleep(60)"))

        waiting = pool.submit(ask)
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as other:
            wait_for(lambda: other.execute(text(asked)).all(), "the question to arrive", 20, every=0.02)
            wire.cut()
            with pytest.raises(BackendUnavailable):
                waiting.result(40)


def test_a_transaction_of_somebody_who_froze_lets_its_locks_go(engine: Engine) -> None:
    with transaction(engine) as connection:
        assert connection.scalar(text("show idle_in_transaction_session_timeout")) == "1min"
        connection.execute(text("create table held (n int); insert into held values (1)"))
    with pytest.raises(BackendUnavailable), transaction(engine) as frozen:
        frozen.execute(text("set local idle_in_transaction_session_timeout = 50"))
        frozen.execute(text("update held set n = 2"))
        with transaction(engine) as other:
            assert other.scalar(text("select n from held for update")) == 1
        frozen.execute(text("update held set n = 3"))


def test_sessions_on_a_server_that_is_read_only_since_a_failover_are_left(
    engine: Engine, postgres_server: Postgres
) -> None:
    """Those that are begun when the address leads to the new primary may write."""
    with transaction(engine) as connection:
        connection.execute(text("create table f (n int)"))
    engine.dispose()
    with psycopg.connect(postgres_server.url, autocommit=True) as other:
        other.execute(f"alter database {engine.url.database} set default_transaction_read_only = on")
        with pytest.raises(BackendUnavailable), transaction(engine) as connection:
            connection.execute(text("insert into f values (1)"))
        other.execute(f"alter database {engine.url.database} reset default_transaction_read_only")
    with transaction(engine) as connection:
        connection.execute(text("insert into f values (1)"))


@pytest.mark.parametrize("use", [transaction, autocommit])
def test_a_table_that_a_migration_has_widened_meanwhile_is_asked_anew(engine: Engine, use: Any) -> None:
    everything = text("select * from m")
    with transaction(engine) as connection:
        connection.execute(text("create table m (n int)"))
    for _ in range(6):  # from the sixth time on the driver has it prepared
        with use(engine) as connection:
            connection.execute(everything)
    migrating = connect(engine.url.render_as_string(hide_password=False))
    with transaction(migrating) as connection:
        connection.execute(text("alter table m add column more int"))
    migrating.dispose()
    with pytest.raises(BackendUnavailable), use(engine) as connection:
        connection.execute(everything)
    with use(engine) as connection:
        assert list(connection.execute(everything).keys()) == ["n", "more"]


def test_two_changes_that_block_each_other_are_told_as_such(engine: Engine) -> None:
    """And not as a database that is away."""
    both_hold_one = Barrier(2)

    def lock(first: int, second: int) -> str:
        try:
            with transaction(engine) as connection:
                connection.execute(text(f"select pg_advisory_xact_lock({first})"))
                both_hold_one.wait(30)
                connection.execute(text(f"select pg_advisory_xact_lock({second})"))
        except BackendUnavailable as error:
            return error.public
        return ""

    with ThreadPoolExecutor(2) as pool:
        told = {*pool.map(lock, (1, 2), (2, 1))}
    assert told == {"", "Two changes met in the database; try again."}
