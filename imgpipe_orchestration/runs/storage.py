"""Dagster's PostgreSQL storage, with pooled connections and answers about its schema remembered within a process.

dagster-postgres opens a connection for every query, and the code server makes a new storage for every tick of every
sensor: it connects a dozen times, checks whether the tables exist and compiles its statements again. The daemon reads
PostgreSQL's catalogue some ten times per tick, to learn that the schema was migrated long ago. An idle stack spent most
of its CPU time on that (docs/performance.md). dagster.yaml names this class as its `custom` storage; everything else is
dagster-postgres's.
"""

from __future__ import annotations

import contextlib
import functools
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, Self

import click
import dagster as dg
from dagster._core.errors import DagsterCodeLocationNotFoundError
from dagster._core.scheduler.instigation import InstigatorState, InstigatorTick, SensorInstigatorData, TickStatus
from dagster._core.storage.event_log import SqlEventLogStorageMetadata
from dagster._core.storage.event_log import migration as event_log
from dagster._core.storage.runs import RunStorageSqlMetadata
from dagster._core.storage.runs import migration as runs
from dagster._core.storage.runs.schema import SecondaryIndexMigrationTable
from dagster._core.storage.schedules import ScheduleStorageSqlMetadata
from dagster._core.storage.schedules import migration as schedules
from dagster._core.storage.sql import stamp_alembic_rev
from dagster._daemon.types import DaemonHeartbeat
from dagster._serdes import ConfigurableClassData
from dagster_postgres import DagsterPostgresStorage
from dagster_postgres.run_storage import run_storage
from dagster_postgres.utils import pg_alembic_config, set_pg_statement_timeout
from dagster_shared.error import SerializableErrorInfo
from sqlalchemy import Engine, NullPool, create_engine, event, inspect, make_url, text

from imgpipe_orchestration.storage.rows import LOST_AFTER, begin_anew_when_read_only

_POOL = {"pool_size": 2, "max_overflow": 30, "pool_recycle": 900, "pool_pre_ping": True}
"""Few connections are kept, but a burst may open more. The ping before use makes restarts of PostgreSQL harmless."""


class PooledPostgresStorage(DagsterPostgresStorage):
    """`config: {postgres_url: ...}`, as for dagster-postgres."""

    @classmethod
    def config_type(cls) -> Mapping[str, Any]:
        # dg.StringSource would resolve the variable itself, and print a long traceback if it is not set.
        return {"postgres_url": dg.ScalarUnion(str, {"env": str})}

    @classmethod
    def from_config_value(cls, inst_data: ConfigurableClassData | None, config_value: Any) -> Self:
        url = with_psycopg2(_named(config_value["postgres_url"]))
        # A run is in the tables already. Were it to wait for the others that look for them, a PostgreSQL that dies then
        # would end its process before it has begun, and its pipeline would stand still for a minute and a half.
        if url in _prepared or _patience_seconds:
            storage = cls(url, should_autocreate_tables=False, inst_data=inst_data)
        else:
            with _alone(url):
                _make_tables(url)
                storage = cls(url, should_autocreate_tables=True, inst_data=inst_data)
            _prepared.add(url)
        schedules: Any = storage.schedule_storage
        schedules.add_instigator_state = functools.partial(_add_whole, schedules, schedules.add_instigator_state)
        schedules.get_instigator_state = functools.partial(_get_by_now, schedules.get_instigator_state)
        schedules.all_instigator_state = functools.partial(_all_by_now, schedules.all_instigator_state)
        schedules.update_tick = functools.partial(_update_as_cut_off, schedules.update_tick)
        beats: Any = storage.run_storage
        beats.add_daemon_heartbeat = functools.partial(_beat, beats, beats.add_daemon_heartbeat)
        events: Any = storage.event_log_storage
        events.initialize_concurrency_limit_to_default = functools.partial(
            _limit_anew, events, events.initialize_concurrency_limit_to_default
        )
        part: Any
        for part in (storage.run_storage, storage.event_log_storage, storage.schedule_storage):
            part._engine = _engine(url)
            # Dagster's own would replace the engine by one without ping before use.
            part.optimize_for_webserver = functools.partial(_limit, part, url)
            for check in _SCHEMA_CHECKS:
                if hasattr(part, check):
                    setattr(part, check, _remembered(url, check, getattr(part, check)))
        return storage


def _limit_anew(events: Any, initialize: Callable[[str], bool], pool: str) -> bool:
    """Give a pool the default limit; the row of an earlier default is removed first.

    Dagster inserts a row and updates the one that is there if that fails, which PostgreSQL refuses after a failure in a
    transaction. Pools would keep the limit of their first dagster.yaml, and runs would be taken from the queue without
    any.
    """
    with events.index_connection() as connection:
        connection.execute(_EARLIER_DEFAULT, {"pool": pool})
    return initialize(pool)


_EARLIER_DEFAULT = text("delete from concurrency_limits where concurrency_key = :pool and using_default_limit")


def _add_whole(schedules: Any, add: Callable[[InstigatorState], InstigatorState], state: InstigatorState) -> Any:
    """Add the state of a sensor or schedule, which Dagster writes to two tables in two transactions.

    If the daemon is killed in between, only one of the rows is there; the next daemon then could not add the state, and
    the sensor would never tick again. So remove such a row first.
    """
    with schedules.connect() as connection:
        connection.execute(_HALF, {"origin": state.instigator_origin_id, "selector": state.selector_id})
    return add(state)


_HALF = text("""
    delete from jobs where job_origin_id = :origin
    and not exists (select from instigators where selector_id = :selector)
""")


def _get_by_now(get: Callable[..., InstigatorState | None], *asked: Any, **named: Any) -> InstigatorState | None:
    state = get(*asked, **named)
    return None if state is None else _by_now(state)


def _all_by_now(get: Callable[..., Iterable[InstigatorState]], *asked: Any, **named: Any) -> list[InstigatorState]:
    return [_by_now(state) for state in get(*asked, **named)]


def _by_now(state: InstigatorState) -> InstigatorState:
    """The state without a last tick that is yet to come, because the clock was set back.

    Dagster asks a sensor again once its interval has passed since that tick. So no pipeline would begin anything until
    the clock is where it was: for hours, where a machine took its hardware clock's local time for UTC at its boot.
    """
    data = state.instigator_data
    if not isinstance(data, SensorInstigatorData):
        return state
    if max(data.last_tick_timestamp or 0, data.last_tick_start_timestamp or 0) <= time.time():
        return state
    return state.with_data(data._replace(last_tick_timestamp=None, last_tick_start_timestamp=None))


def _update_as_cut_off(update: Callable[[InstigatorTick], InstigatorTick], tick: InstigatorTick) -> InstigatorTick:
    """Write down a tick that the stop of its daemon cut off as one that was begun, which the next daemon takes up.

    The daemon empties its workspace before it waits for its threads, where up to a tick of every sensor may be queued.
    Each would stand in the UI as failed, of a location that does not exist, until its sensor ticks again.
    """
    if tick.error is not None and tick.error.cls_name == DagsterCodeLocationNotFoundError.__name__:
        tick = tick.with_status(TickStatus.STARTED, error=None)
    return update(tick)


def _beat(beats: Any, add: Callable[[DaemonHeartbeat], None], heartbeat: DaemonHeartbeat) -> None:
    """Write a daemon's heartbeat down; with an error, which the UI and `imgpipe doctor` show, if another daemon has
    written one since its last. Dagster's own word on that is in the log of the daemon only."""
    daemon = heartbeat.daemon_type, heartbeat.daemon_id
    last = beats.get_daemon_heartbeats().get(heartbeat.daemon_type)
    if daemon in _beating and last is not None and last.daemon_id != heartbeat.daemon_id:
        told = SerializableErrorInfo(ANOTHER_DAEMON, [], None)
        heartbeat = heartbeat._replace(errors=[*(heartbeat.errors or ()), told])
    _beating.add(daemon)
    add(heartbeat)


ANOTHER_DAEMON = (
    "another daemon works on the same Dagster database, with the settings of its own start (a `dagster dev` that was"
    " left running, a service, another machine): end all but one"
)
_beating: set[tuple[str, str | None]] = set()
"""Type and id of the daemons of this process that have written a heartbeat. What was there before their first may be of
one that has ended."""


def _limit(part: Any, url: str, statement_timeout: int, pool_recycle: int, max_overflow: int) -> None:
    """Limit the time of the UI's statements, milliseconds; the pool stays as it is."""
    part._engine = _engine(url, statement_timeout)


def _named(url: str | Mapping[str, str]) -> str:
    """The URL, or the value of the variable that `env` names.

    Raises:
        ClickException: it is not set; all of Dagster's commands use click, which prints this as one line.
    """
    if isinstance(url, str):
        return url
    name = url["env"]
    if not os.environ.get(name):
        raise click.ClickException(
            f'{name} is not set. For a stack of `imgpipe up` that runs, `eval "$(.venv/bin/imgpipe env)"` sets it; in'
            " production, set it as for the services."
        )
    return os.environ[name]


def with_psycopg2(url: str) -> str:
    """The URL with its driver named: by default SQLAlchemy 2.1 uses psycopg 3, with which dagster-postgres fails."""
    parsed = make_url(url)
    if parsed.drivername in {"postgresql", "postgres"}:
        parsed = parsed.set(drivername="postgresql+psycopg2")
    return parsed.render_as_string(hide_password=False)


@contextlib.contextmanager
def _alone(url: str) -> Iterator[None]:
    """A lock for creating the tables. Webserver, daemon and code server start at the same time; on a new database one
    of them creates the tables and the others wait. Dagster itself only retries five times when a table already
    exists."""
    with _engine(url).connect() as connection:
        connection.execute(text("select pg_advisory_lock(:key)"), {"key": _TABLES_LOCK})
        try:
            yield
        finally:
            connection.execute(text("select pg_advisory_unlock(:key)"), {"key": _TABLES_LOCK})


def _make_tables(url: str) -> None:
    """Create Dagster's tables in an empty database in one transaction.

    Dagster commits each table separately and later checks only for the first. So if the first start was interrupted,
    the others would be missing for ever.
    """
    engine = create_engine(url, connect_args=LOST_AFTER, poolclass=NullPool)
    with engine.begin() as connection:
        if "runs" in inspect(connection).get_table_names():
            return
        for tables in (RunStorageSqlMetadata, SqlEventLogStorageMetadata, ScheduleStorageSqlMetadata):
            tables.create_all(connection)
        done = [{"name": name, "migration_completed": datetime.now(UTC)} for name in _DATA_MIGRATIONS]
        connection.execute(SecondaryIndexMigrationTable.insert(), done)
        stamp_alembic_rev(pg_alembic_config(run_storage.__file__), connection)


_DATA_MIGRATIONS = (
    *runs.REQUIRED_DATA_MIGRATIONS,
    *runs.OPTIONAL_DATA_MIGRATIONS,
    *event_log.EVENT_LOG_DATA_MIGRATIONS,
    *event_log.ASSET_DATA_MIGRATIONS,
    *schedules.REQUIRED_SCHEDULE_DATA_MIGRATIONS,
    *schedules.OPTIONAL_SCHEDULE_DATA_MIGRATIONS,
)
"""Data migrations of old databases; a new one is marked as having done them."""
_TABLES_LOCK = 0x6461677374657201
_prepared: set[str] = set()
"""URLs whose tables this process has checked."""

_SCHEMA_CHECKS = (
    "has_asset_key_col",
    "has_backfill_id_column",
    "has_backfill_tags_table",
    "has_built_index",
    "has_bulk_action_job_name_column",
    "has_bulk_actions_selector_cols",
    "has_run_stats_index_cols",
    "has_instigators_table",
    "has_secondary_index",
    "_has_instigators_table",
)
"""Dagster's methods that read its schema from PostgreSQL's catalogue, up to ten times per tick of a sensor."""

_passed: set[tuple[str, ...]] = set()
"""URL, name and string arguments of checks that were true in this process. One that was false is made again, because
the database may be migrated."""


def _remembered(url: str, name: str, check: Callable[..., bool]) -> Callable[..., bool]:
    def remembered(*arguments: Any) -> bool:
        key = (url, name, *(one for one in arguments if isinstance(one, str)))  # without the connection
        if key not in _passed and check(*arguments):
            _passed.add(key)
        return key in _passed

    return remembered


@functools.cache
def _engine(url: str, statement_timeout: int = 0) -> Engine:
    engine = create_engine(url, isolation_level="AUTOCOMMIT", connect_args=LOST_AFTER, **_POOL)
    event.listen(engine, "do_connect", _connected)
    begin_anew_when_read_only(engine)
    if statement_timeout:
        event.listen(engine, "connect", lambda session, _: set_pg_statement_timeout(session, statement_timeout))
    return engine


_AWAY_SECONDS = 3600
"""How long a run waits for its database; run monitoring ends a run after that time anyway (dagster.yaml)."""
_LOOK_AGAIN_SECONDS = 1.0
_patience_seconds = 0.0


def be_patient() -> None:
    """From now on connections of this process wait for a database that is away. For runs: Dagster's own few seconds
    over, a run could write down neither what it did nor that it ended, and would count as killed by one of its items.
    """
    global _patience_seconds  # noqa: PLW0603 - Dagster makes the storage, and takes no argument of ours
    _patience_seconds = _AWAY_SECONDS


def _connected(dialect: Any, record: Any, arguments: Any, options: Any) -> Any:
    """A connection of the driver, for which a patient process waits."""
    until = time.monotonic() + _patience_seconds
    while True:
        try:
            return dialect.connect(*arguments, **options)
        except dialect.loaded_dbapi.OperationalError:
            if time.monotonic() >= until:
                raise
            time.sleep(_LOOK_AGAIN_SECONDS)
