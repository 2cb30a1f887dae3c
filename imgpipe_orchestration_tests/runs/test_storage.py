"""Dagster's storage as dagster.yaml names it: what it keeps from one question to the next."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import dagster as dg
import psycopg
import pytest
from dagster._core.definitions.run_request import InstigatorType
from dagster._core.errors import DagsterInvariantViolationError
from dagster._core.remote_origin import InProcessCodeLocationOrigin, RemoteInstigatorOrigin, RemoteRepositoryOrigin
from dagster._core.scheduler.instigation import InstigatorState, InstigatorStatus, SensorInstigatorData, TickStatus
from dagster._core.types.loadable_target_origin import LoadableTargetOrigin
from dagster._daemon.sensor import is_under_min_interval
from dagster._daemon.types import DaemonHeartbeat
from dagster_postgres import DagsterPostgresStorage
from sqlalchemy import event, text
from sqlalchemy.exc import DBAPIError

from imgpipe_orchestration.devstack.postgres import Postgres
from imgpipe_orchestration.runs.storage import _TABLES_LOCK, ANOTHER_DAEMON, with_psycopg2
from imgpipe_orchestration_tests.devstack.running import clean_environment, wait_for
from imgpipe_orchestration_tests.runs.instances import configure

ROOT = Path(__file__).parents[2]

ENDED = "select count(pg_terminate_backend(pid, 10000)) from pg_stat_activity where datname = %s"

AT_ONCE = """
import multiprocessing, sys, dagster, imgpipe_orchestration.runs.storage

def open_and_close(barrier):
    barrier.wait(60)
    dagster.DagsterInstance.from_config(sys.argv[1]).dispose()

fork = multiprocessing.get_context("fork")
barrier = fork.Barrier(12)
children = [fork.Process(target=open_and_close, args=[barrier]) for _ in range(12)]
for child in children: child.start()
for child in children: child.join()
sys.exit(sum(child.exitcode != 0 for child in children))
"""

OF_A_RUN = """
import sys, dagster
from imgpipe_orchestration.runs import storage

storage.be_patient()
with dagster.DagsterInstance.from_config(sys.argv[1]) as instance:
    instance.get_runs()
"""


def opened(url: str, home: Path, *lines: str) -> dg.DagsterInstance:
    configure(home, url, *lines)
    return dg.DagsterInstance.from_config(str(home))


def state_of_a_sensor(data: SensorInstigatorData) -> InstigatorState:
    code = InProcessCodeLocationOrigin(LoadableTargetOrigin(module_name="nothing"), location_name="here")
    origin = RemoteInstigatorOrigin(RemoteRepositoryOrigin(code, "repository"), "sensor")
    return InstigatorState(origin, InstigatorType.SENSOR, InstigatorStatus.DECLARED_IN_CODE, data)


def look(instance: dg.DagsterInstance) -> None:
    """What the daemon and the code server do for a tick."""
    instance.get_instigator_state("origin", "selector")
    instance.get_ticks("origin", "selector", limit=1)
    instance.get_run_records(dg.RunsFilter(job_name="nothing"), limit=1)
    instance.get_backfills(limit=1)


def test_the_catalogue_is_read_once_in_a_process(postgres_server: Postgres, tmp_path: Path) -> None:
    url = postgres_server.ensure_database("dagster_storage")
    statements: list[str] = []
    with opened(url, tmp_path) as first:
        event.listen(first.run_storage._engine, "before_cursor_execute", lambda *said: statements.append(said[2]))
        look(first)
    assert any("pg_catalog" in one for one in statements)
    statements.clear()
    with opened(url, tmp_path) as second:  # as the code server does it for each tick
        look(second)
    assert statements
    assert [one for one in statements if "pg_catalog" in one or "secondary_indexes" in one] == []


def test_the_webserver_does_not_notice_that_postgresql_was_restarted(postgres_server: Postgres, tmp_path: Path) -> None:
    url = postgres_server.ensure_database("dagster_storage_of_the_webserver")
    with opened(url, tmp_path) as instance:
        instance.optimize_for_webserver(statement_timeout=1234, pool_recycle=3600, max_overflow=20)
        for _ in range(2):
            look(instance)
            instance.fetch_run_status_changes(dg.DagsterEventType.RUN_FAILURE, limit=1)
            with psycopg.connect(postgres_server.url, autocommit=True) as other:
                assert other.execute(ENDED, ["dagster_storage_of_the_webserver"]).fetchone() != (0,)
        look(instance)
        with instance.run_storage._engine.connect() as connection:
            assert connection.scalar(text("show statement_timeout")) == "1234ms"


def test_sessions_on_a_server_that_is_read_only_since_a_failover_are_left(
    postgres_server: Postgres, tmp_path: Path
) -> None:
    url = postgres_server.ensure_database("dagster_storage_failover")
    with (
        opened(url, tmp_path) as instance,
        psycopg.connect(postgres_server.url, autocommit=True) as other,
    ):
        look(instance)
        other.execute("alter database dagster_storage_failover set default_transaction_read_only = on")
        other.execute(ENDED, ["dagster_storage_failover"])
        with pytest.raises(DBAPIError):
            instance.add_dynamic_partitions("customers", ["one"])
        other.execute("alter database dagster_storage_failover reset default_transaction_read_only")
        instance.add_dynamic_partitions("customers", ["one"])
        assert instance.get_dynamic_partitions("customers") == ["one"]


def test_pools_have_the_default_limit_of_the_present_configuration(postgres_server: Postgres, tmp_path: Path) -> None:
    url = postgres_server.ensure_database("dagster_storage_pools")
    for limit in (2, 4, 4, 1):
        with opened(url, tmp_path, f"concurrency: {{pools: {{default_limit: {limit}}}}}") as instance:
            for pool in ("openai", "flowise"):
                assert instance.event_log_storage.initialize_concurrency_limit_to_default(pool)
            limits = {pool.name: pool.limit for pool in instance.event_log_storage.get_pool_limits()}
            assert limits == {"openai": limit, "flowise": limit}
            assert instance.event_log_storage.get_concurrency_info("openai").slot_count == limit


@pytest.mark.slow
def test_many_processes_that_start_at_once_make_the_tables_of_a_new_database_together(
    postgres_server: Postgres, tmp_path: Path
) -> None:
    configure(tmp_path, postgres_server.ensure_database("dagster_storage_at_once"))
    command = [sys.executable, "-W", "ignore", "-c", AT_ONCE, str(tmp_path)]
    ended = subprocess.run(command, check=False, capture_output=True, text=True, timeout=120)
    assert ended.returncode == 0, ended.stderr


def test_a_run_outlives_a_postgresql_that_dies_while_it_begins(postgres_server: Postgres, tmp_path: Path) -> None:
    """It waits for no other process that looks for the tables at that moment, with a connection that could break."""
    url = postgres_server.ensure_database("dagster_storage_of_a_run")
    opened(url, tmp_path).dispose()
    cut = """
        select count(pg_terminate_backend(pid, 10000)) > 0 from pg_locks
        where locktype = 'advisory' and not granted
            and database = (select oid from pg_database where datname = current_database())"""
    with psycopg.connect(url, autocommit=True) as looking:
        looking.execute("select pg_advisory_lock(%s)", [_TABLES_LOCK])
        begun = subprocess.Popen([sys.executable, "-W", "ignore", "-c", OF_A_RUN, str(tmp_path)])
        try:
            wait_for(lambda: begun.poll() is not None or looking.execute(cut).fetchone() == (True,), "the run to begin")
            looking.execute("select pg_advisory_unlock(%s)", [_TABLES_LOCK])
            assert begun.wait(60) == 0
        finally:
            begun.kill()
            begun.wait()


def test_a_first_start_that_is_cut_off_leaves_no_half_made_tables(postgres_server: Postgres, tmp_path: Path) -> None:
    url = postgres_server.ensure_database("dagster_storage_cut_off")
    cut_off = """
        CREATE FUNCTION cut_off() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN
            IF to_regclass('asset_keys') IS NOT NULL THEN PERFORM pg_terminate_backend(pg_backend_pid()); END IF;
        END $$;
        CREATE EVENT TRIGGER cut_off ON ddl_command_end EXECUTE FUNCTION cut_off()"""
    with psycopg.connect(url, autocommit=True) as database:
        database.execute(cut_off)
        with pytest.raises(DBAPIError):
            opened(url, tmp_path)
        assert database.execute("SELECT to_regclass('runs')").fetchone() == (None,)
        database.execute("DROP EVENT TRIGGER cut_off")
    with opened(url, tmp_path) as instance:
        look(instance)


def test_a_sensor_that_a_killed_daemon_added_by_half_is_added_by_the_next(
    postgres_server: Postgres, tmp_path: Path
) -> None:
    url = postgres_server.ensure_database("dagster_storage_by_half")
    state = state_of_a_sensor(SensorInstigatorData(min_interval=10))
    cut_off = """
        CREATE FUNCTION cut_off() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
            PERFORM pg_terminate_backend(pg_backend_pid()); RETURN new;
        END $$;
        CREATE TRIGGER cut_off BEFORE INSERT ON instigators EXECUTE FUNCTION cut_off()"""
    with opened(url, tmp_path) as killed, psycopg.connect(url, autocommit=True) as database:
        database.execute(cut_off)
        with pytest.raises(DBAPIError):
            killed.add_instigator_state(state)
        assert database.execute("SELECT count(*) FROM jobs").fetchone() == (1,)
        database.execute("DROP TRIGGER cut_off ON instigators")
    with opened(url, tmp_path) as instance:
        assert instance.get_instigator_state(state.instigator_origin_id, state.selector_id) is None
        instance.add_instigator_state(state)
        assert instance.get_instigator_state(state.instigator_origin_id, state.selector_id) == state
        with pytest.raises(DagsterInvariantViolationError):  # as Dagster has it
            instance.add_instigator_state(state)


@pytest.mark.parametrize(("ahead", "under"), [(-1, True), (3600, False)])
def test_a_sensor_ticks_although_its_last_tick_is_yet_to_come(
    postgres_server: Postgres, tmp_path: Path, ahead: float, under: bool
) -> None:
    """The clock was set back: Dagster's own waits until it is where it was, and nothing begins meanwhile."""
    url = postgres_server.ensure_database(f"dagster_storage_{'behind' if under else 'ahead'}")
    tick = time.time() + ahead
    data = SensorInstigatorData(tick, min_interval=10, cursor="7", last_tick_start_timestamp=tick)
    state = state_of_a_sensor(data)
    sensor = SimpleNamespace(min_interval_seconds=10)
    with opened(url, tmp_path) as instance:
        instance.add_instigator_state(state)
        one = instance.get_instigator_state(state.instigator_origin_id, state.selector_id)
        for found in (one, *instance.all_instigator_state(instigator_type=InstigatorType.SENSOR)):
            assert found is not None
            assert is_under_min_interval(found, sensor) is under  # type: ignore[arg-type]
            assert isinstance(found.instigator_data, SensorInstigatorData)
            assert found.instigator_data.cursor == "7"


SLOW_SENSORS = """
import time
import dagster as dg

def slow(number):
    @dg.sensor(name=f"slow_{number}", minimum_interval_seconds=1, default_status=dg.DefaultSensorStatus.RUNNING)
    def ticks(context):
        time.sleep(1)
        return dg.SkipReason("nothing to do")
    return ticks

defs = dg.Definitions(sensors=[slow(number) for number in range(6)])
"""


@pytest.mark.slow
def test_ticks_that_wait_when_the_daemon_stops_are_not_written_down_as_failed(
    postgres_server: Postgres, tmp_path: Path
) -> None:
    url = postgres_server.ensure_database("dagster_ticks")
    configure(tmp_path, url, "sensors: {use_threads: true, num_workers: 1}")
    (tmp_path / "slow_sensors.py").write_text(SLOW_SENSORS)
    command = [sys.executable, "-m", "dagster._daemon", "run", "-f", str(tmp_path / "slow_sensors.py")]
    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:

        def ticks(status: TickStatus) -> int:
            states = instance.all_instigator_state()
            found = (instance.get_ticks(one.instigator_origin_id, one.selector_id, statuses=[status]) for one in states)
            return sum(map(len, found))

        daemon = subprocess.Popen(command, env=clean_environment(DAGSTER_HOME=str(tmp_path)))
        try:
            wait_for(lambda: ticks(TickStatus.SKIPPED), "a tick", 120)
            daemon.send_signal(signal.SIGINT)
            daemon.wait(60)
        finally:
            daemon.kill()
        assert ticks(TickStatus.FAILURE) == 0
        assert ticks(TickStatus.STARTED) > 0, "some had to wait"


def test_a_second_daemon_on_the_database_is_told_of_by_both_heartbeats(
    postgres_server: Postgres, tmp_path: Path
) -> None:
    url = postgres_server.ensure_database("dagster_storage_daemons")
    with opened(url, tmp_path) as instance:

        def beats(daemon: str) -> list[str]:
            instance.add_daemon_heartbeat(DaemonHeartbeat(time.time(), "SENSOR", daemon))
            return [error.message for error in instance.get_daemon_heartbeats()["SENSOR"].errors or ()]

        assert [beats(daemon) for daemon in ("first", "first", "second", "second")] == [[]] * 4, "a daemon's restart"
        assert beats("first") == [ANOTHER_DAEMON]
        assert beats("second") == [ANOTHER_DAEMON]
        assert beats("second") == [], "the other one has ended"


def test_the_tables_are_those_that_dagster_makes(postgres_server: Postgres, tmp_path: Path) -> None:
    ours = postgres_server.ensure_database("dagster_storage_ours")
    theirs = postgres_server.ensure_database("dagster_storage_theirs")
    opened(ours, tmp_path).dispose()
    DagsterPostgresStorage(with_psycopg2(theirs))
    with psycopg.connect(ours) as one, psycopg.connect(theirs) as other:
        for query in (
            "SELECT table_name, column_name, data_type FROM information_schema.columns WHERE table_schema = 'public'",
            "SELECT indexdef FROM pg_indexes WHERE schemaname = 'public'",
            "SELECT name FROM secondary_indexes WHERE migration_completed IS NOT NULL",
            "SELECT version_num FROM alembic_version",
        ):
            found = one.execute(query).fetchall()
            assert found
            assert sorted(found) == sorted(other.execute(query).fetchall())


def test_a_dagster_command_without_the_environment_says_in_a_line_where_to_get_it(tmp_path: Path) -> None:
    (tmp_path / "dagster.yaml").write_bytes((ROOT / "dagster.yaml").read_bytes())
    command = [sys.executable, "-m", "dagster", "instance", "info"]
    environment = clean_environment(DAGSTER_HOME=str(tmp_path))
    told = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60, check=False)
    assert told.returncode == 1
    assert "Traceback" not in told.stderr
    assert told.stderr.startswith("Error: DAGSTER_PG_URL is not set.") and "imgpipe env" in told.stderr
