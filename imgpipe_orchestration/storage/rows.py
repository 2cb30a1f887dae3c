"""Connections to PostgreSQL, and to MySQL or MariaDB for `pending_images`."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import datetime
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, Engine, create_engine, event, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import (
    DataError,
    DBAPIError,
    InterfaceError,
    InternalError,
    OperationalError,
    SQLAlchemyError,
)
from sqlalchemy.exc import TimeoutError as PoolTimeout

from imgpipe_orchestration.errors import BackendUnavailable, BadInput, NotMigrated, OutOfSpace, SettingsError
from imgpipe_orchestration.storage import migrations

if TYPE_CHECKING:
    from psycopg import AsyncConnection
    from sqlalchemy.engine.interfaces import DBAPIConnection, ExceptionContext
    from sqlalchemy.pool import ConnectionPoolEntry

_DRIVERS = {
    "postgresql": "postgresql+psycopg",
    "postgres": "postgresql+psycopg",
    "postgresql+psycopg2": "postgresql+psycopg",
    "mysql": "mysql+pymysql",
    "mariadb": "mariadb+pymysql",
}


def connect(url: str, *, pool_size: int = 8, setting: str = "DATABASE_URL") -> Engine:
    """An engine with a bounded pool for `url`; the first connection is made on first use.

    Args:
        url: `postgresql://...`, `mysql://...` or `mariadb://...`, with or without a driver.
        pool_size: connections kept; as many again may be opened under load.
        setting: the variable the URL came from, for the error message.

    Raises:
        SettingsError: the URL is empty or of an unknown kind.
    """
    if not url:
        raise SettingsError(f"{setting} is not set: start `imgpipe up`, or point it at a database")
    parsed = make_url(url)
    driver = _DRIVERS.get(parsed.drivername, parsed.drivername)
    if driver not in _DRIVERS.values():
        raise SettingsError(f"{setting}: {parsed.drivername!r} is not a database we can use")
    postgresql = driver.startswith("postgresql")
    if postgresql:
        # A statement or an idle transaction of a minute is a fault. A worker must not hang past its lease; and one that
        # froze or was cut off within a transaction would keep its locks until TCP gives up, which takes two hours.
        # Plans are not kept, because a queue grows from ten rows to a million between two statements.
        limits = "-c statement_timeout=60000 -c idle_in_transaction_session_timeout=60000"
        session = f"{limits} -c timezone=UTC -c plan_cache_mode=force_custom_plan"
        # After those of the URL, because the last value of a setting counts.
        options = " ".join((*parsed.normalized_query.get("options", ()), session))
        arguments = {"options": options, "application_name": "imgpipe", **LOST_AFTER}
    else:
        # Only MariaDB executes the comment; MySQL has no such setting.
        limits = "SESSION innodb_lock_wait_timeout = 20 /*M! , SESSION idle_transaction_timeout = 60 */"
        session = f"SET time_zone = '+00:00', {limits}"
        arguments = {"init_command": session, "read_timeout": _SILENT_SECONDS, "write_timeout": _SILENT_SECONDS}
    engine = create_engine(
        parsed.set(drivername=driver),
        pool_size=pool_size,
        max_overflow=pool_size,
        pool_pre_ping=True,
        pool_use_lifo=True,  # the session that was used last has prepared statements and warm caches
        pool_recycle=1800,
        connect_args={"connect_timeout": 5, **arguments},
    )
    begin_anew_when_stale(engine)
    _close_what_comes_back_late(engine)
    return engine


async def connect_async(engine: Engine) -> AsyncConnection:
    """A new connection for the running event loop to the database of an engine, in autocommit mode.

    Raises:
        psycopg.OperationalError: the database cannot be reached.
    """
    import psycopg

    url = engine.url.set(drivername="postgresql").render_as_string(hide_password=False)
    return await psycopg.AsyncConnection.connect(
        url, autocommit=True, connect_timeout=5, application_name="imgpipe", **LOST_AFTER
    )


LOST_AFTER: dict[str, Any] = {
    "tcp_user_timeout": 10_000,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
}
"""When libpq considers a connection lost: after 10 s (in milliseconds) without acknowledgement of sent data; an idle
one is probed from the tenth second on. Otherwise a caller would wait a quarter of an hour for a machine that
disappeared, or two hours if its statement had already arrived there."""

_SILENT_SECONDS = 30
"""How long MySQL or MariaDB may take to answer; a frozen one takes it twice: for a ping and for a new connection. For
PostgreSQL that is `statement_timeout`."""


def begin_anew_when_stale(engine: Engine) -> None:
    """Discard the pool's sessions when they are of no use any more.

    Their server takes no writes: it was the primary before a failover, and a new session may reach the one that is.
    Otherwise every write would fail until the pool renews its sessions. Or a table got a new column: PostgreSQL then
    refuses `select *` statements that the driver prepared before, and outside of transactions the driver would send
    them again and again.
    """

    @event.listens_for(engine, "handle_error")
    def note(context: ExceptionContext) -> None:
        # The error has no SQLSTATE of its own, and its text is localised.
        where = getattr(getattr(context.original_exception, "diag", None), "source_function", None)
        if where == "RevalidateCachedQuery" or _is(_READ_ONLY, context.original_exception):
            context.is_disconnect = True


def _close_what_comes_back_late(engine: Engine) -> None:
    """Close connections that threads give back after `dispose`: SQLAlchemy leaves them open in its old pool."""
    over = threading.Event()

    @event.listens_for(engine, "engine_disposed")
    def note(_: Engine) -> None:
        over.set()

    @event.listens_for(engine, "checkin")
    def given_back(connection: DBAPIConnection | None, record: ConnectionPoolEntry) -> None:
        if over.is_set() and connection is not None:
            record.invalidate()


# SQLSTATEs of PostgreSQL, and numbers of MySQL and MariaDB, most of whose errors share one SQLSTATE.
_READ_ONLY = ("25006", 1290, 1792, 1836)
"""A write in a read-only transaction, or on a server that is."""
_DISK_FULL = ("53100", 1021, 1114)
"""A write to a full disk, or to a table that may not grow."""
_CONFLICTS = ("40001", "40P01", 1020)
"""A transaction that another one got in the way of: a deadlock, for one."""
_TOO_LONG = ("57014", 1205, 1969, 3024)
"""A statement that took longer than it may, also because it waited for a lock."""
_CANNOT_HOLD = ("22001", "22003", "22021", "22P05", 1366)
"""A text that is too long, a number that is too large, and characters that are invalid, or not in the column's set."""
_NOT_AS_AGREED = (1054, 1146)
"""A column or a table of the main API's database that is not there."""
_LACKING = {"42P01", "42703"}
"""SQLSTATEs of an unknown table and of an unknown column."""


def _is(codes: Sequence[str | int], error: BaseException | None) -> bool:
    # By psycopg, by psycopg2 (in Dagster's storage), by PyMySQL.
    told = (getattr(error, "sqlstate", None), getattr(error, "pgcode", None), *getattr(error, "args", ())[:1])
    return any(code in codes for code in told)


@contextmanager
def transaction(engine: Engine) -> Iterator[Connection]:
    """One transaction, with the database's errors turned into ours.

    Raises:
        BackendUnavailable: the database cannot be reached, went away, timed out, broke a deadlock, takes no writes at
            the moment or has just been migrated; or every connection of the pool is in use.
        NotMigrated: a table or a column does not exist yet.
        BadInput: a value that no column can hold, such as a text with a NUL or an id of thirty digits.
    """
    with translated(engine), engine.begin() as connection:
        yield connection
        if (last := before_commit.get()) is not None:
            last(connection)


before_commit: ContextVar[Callable[[Connection], None] | None] = ContextVar("before_commit", default=None)
"""What is written last in each transaction of this context: the audit's row of a request that changes something."""


def time_of(connection: Connection) -> datetime:
    """The database's time, which every time that it keeps is of: a machine's own clock may be wrong."""
    now: datetime = connection.execute(text("select now()")).scalar_one()
    return now


@contextmanager
def autocommit(engine: Engine) -> Iterator[Connection]:
    """A connection on which each statement is a transaction; it saves the round trips of BEGIN and COMMIT.

    Raises:
        BackendUnavailable, NotMigrated, BadInput: as `transaction`.
    """
    with translated(engine), engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        yield connection


@contextmanager
def translated(engine: Engine | None = None) -> Iterator[None]:
    """Turns errors into ours like `transaction`, for code with a connection of its own. NotMigrated is only raised with
    an `engine`, which is needed to ask the database."""
    try:
        yield
    except (OperationalError, InterfaceError, PoolTimeout) as error:
        raise unavailable(error) from error
    except DataError as error:
        # NUL is refused by the driver itself, without a SQLSTATE.
        if getattr(error.orig, "sqlstate", None) is not None and not _is(_CANNOT_HOLD, error.orig):
            raise
        reason = "it is too long, or its column's character set lacks a character"
        if hasattr(error.orig, "diag"):  # PostgreSQL's; the others name tables in theirs
            reason = str(error.orig).splitlines()[0]
        raise BadInput(f"A value cannot be stored: {reason}", detail=str(error)) from error
    except UnicodeEncodeError as error:
        raise BadInput("A value cannot be stored: a lone surrogate is not a character", detail=str(error)) from error
    except DBAPIError as error:
        # A replica that has not been promoted yet refuses writes with a class of its own. What speaks another protocol,
        # on a port that is not the server's, sends no SQLSTATE.
        garbled = isinstance(error, InternalError) and getattr(error.orig, "sqlstate", None) is None
        if error.connection_invalidated or garbled or _is((*_READ_ONLY, *_NOT_AS_AGREED), error.orig):
            raise unavailable(error) from error
        if engine is not None and not_migrated(engine, error.orig):
            raise NotMigrated(detail=str(error.orig).splitlines()[0]) from error
        raise


def not_migrated(engine: Engine, error: BaseException | None) -> bool:
    """Whether the driver's error is about a table or column that a pending migration may create."""
    if getattr(error, "sqlstate", None) not in _LACKING:
        return False
    with translated(), engine.connect() as connection:
        return migrations.behind(connection)


def unavailable(error: SQLAlchemyError) -> BackendUnavailable:
    """The database's absence as our error; the driver's message is only in `detail`, for the log."""
    cause = getattr(error, "orig", None) or error  # without the links that SQLAlchemy adds
    if _is(_DISK_FULL, cause):
        said = "The database's disk is full. What was accepted waits until there is room; then send the rest again."
        return OutOfSpace(said, detail=str(cause))
    if _is(_NOT_AS_AGREED, cause):
        told = f"The database lacks a table or a column: {cause.args[1]}."
    elif isinstance(error, PoolTimeout):
        told = "All connections to the database are in use; try again."
    else:
        told = next((words for codes, words in _AWAY if _is(codes, cause)), f"The database cannot be reached. {_WAITS}")
    return BackendUnavailable(told, detail=str(cause))


_WAITS = "What was accepted waits and goes on by itself; send anything else again."
_AWAY: tuple[tuple[Sequence[str | int], str], ...] = (
    (_CONFLICTS, "Two changes met in the database; try again."),
    (_READ_ONLY, f"The database takes no writes: it is read-only, as after a failover. {_WAITS}"),
    (_TOO_LONG, f"The database took too long over a statement. {_WAITS}"),
)
