"""Connections to PostgreSQL (and to MySQL or MariaDB, where `pending_images` may live)."""

from __future__ import annotations

import select
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import make_url
from sqlalchemy.exc import (
    DataError,
    DBAPIError,
    InterfaceError,
    InvalidatePoolError,
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
        raise SettingsError(f"{setting} is not set: start `imgpipe up`, or point it at a database", field=setting)
    parsed = make_url(url)
    driver = _DRIVERS.get(parsed.drivername, parsed.drivername)
    if driver not in _DRIVERS.values():
        raise SettingsError(f"{setting}: {parsed.drivername!r} is not a database we can use", field=setting)
    postgresql = driver.startswith("postgresql")
    if postgresql:
        # A statement that takes a minute is a fault; a worker must not hang on it past its lease. So is a transaction
        # that nothing was asked in for as long: whoever froze or was cut off within one would hold his rows' locks, and
        # his tenants' turns, against everybody until TCP gives his machine up, which takes two hours.
        # A queue grows from ten rows to a million between two statements: a plan kept from before would read them all.
        limits = "-c statement_timeout=60000 -c idle_in_transaction_session_timeout=60000"
        session = f"{limits} -c timezone=UTC -c plan_cache_mode=force_custom_plan"
        # Behind those of the URL: of two values for one setting PostgreSQL takes the last.
        options = " ".join((*parsed.normalized_query.get("options", ()), session))
        arguments = {"options": options, "application_name": "imgpipe", **LOST}
    else:
        # MariaDB reads the comment; MySQL, which has no such limit, does not.
        limits = "SESSION innodb_lock_wait_timeout = 20 /*M! , SESSION idle_transaction_timeout = 60 */"
        session = f"SET time_zone = '+00:00', {limits}"
        arguments = {"init_command": session, "read_timeout": _SILENT_SECONDS, "write_timeout": _SILENT_SECONDS}
    engine = create_engine(
        parsed.set(drivername=driver),
        pool_size=pool_size,
        max_overflow=pool_size,
        pool_pre_ping=not postgresql,
        pool_use_lifo=True,  # the session that was used last has its statements prepared and its caches warm
        pool_recycle=1800,
        connect_args={"connect_timeout": 5, **arguments},
    )
    if postgresql:
        _connect_to_postgresql(engine)
        _check_before_use(engine)
        _begin_anew_when_migrated(engine)
    return engine


def _connect_to_postgresql(engine: Engine) -> None:
    @event.listens_for(engine, "do_connect")
    def connect(_: object, __: object, args: Sequence[Any], kwargs: dict[str, Any]) -> DBAPIConnection:
        from imgpipe_orchestration.storage.postgres import PostgresConnection

        return cast("DBAPIConnection", PostgresConnection.connect(*args, **kwargs))


async def connect_async(engine: Engine) -> AsyncConnection:
    """A connection of its own for the running event loop, to the database of an engine; every statement commits.

    Raises:
        psycopg.OperationalError: the database cannot be reached.
    """
    import psycopg

    url = engine.url.set(drivername="postgresql").render_as_string(hide_password=False)
    return await psycopg.AsyncConnection.connect(
        url, autocommit=True, connect_timeout=5, application_name="imgpipe", **LOST
    )


LOST: dict[str, Any] = {
    "tcp_user_timeout": 10_000,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
}
"""When libpq takes a connection for lost: its peer's machine has acknowledged nothing for 10 s (in milliseconds), and
in a silence it is asked from the tenth second on. A machine or a cable that goes without a word would otherwise hold
whoever waits for a quarter of an hour, or for two when the question had just arrived."""

_SILENT_SECONDS = 60
"""How long MySQL or MariaDB may take to answer; PostgreSQL is told so by its `statement_timeout`, and one that heeds
nothing is given up by `postgres` a little later."""

_TRUSTED_SECONDS = 30
"""A connection that was used this recently still leads somewhere, unless its socket says otherwise."""


def _check_before_use(engine: Engine) -> None:
    """Replace pooled connections that the server has left, as SQLAlchemy's pre-ping does, without its trip to the
    server each time, which is a fifth of what a short transaction takes.

    Nobody writes to a connection in the pool. A server that went away did: the end of the stream waits to be read.
    Only what goes away without a word, a router say, needs to be asked, once the connection has been idle.
    """

    @event.listens_for(engine, "checkin")
    def note(_: object, record: ConnectionPoolEntry) -> None:
        record.info["idle_since"] = time.monotonic()

    @event.listens_for(engine, "checkout")
    def check(connection: Any, record: ConnectionPoolEntry, _: object) -> None:
        idle_since = record.info.get("idle_since")
        if idle_since is None:  # made just now
            return
        idle = time.monotonic() - idle_since
        try:
            if idle > _TRUSTED_SECONDS or _has_something_to_read(connection.fileno()):
                engine.dialect.do_ping(connection)
        except engine.dialect.loaded_dbapi.Error as error:
            raise InvalidatePoolError from error


def _has_something_to_read(descriptor: int) -> bool:
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(0))


def _begin_anew_when_migrated(engine: Engine) -> None:
    """Give the pool's sessions up when a table has got a column. What the driver has prepared there with `select *`
    PostgreSQL refuses from then on, and outside of transactions the driver would send it again and again."""

    @event.listens_for(engine, "handle_error")
    def note(context: ExceptionContext) -> None:
        # It has no SQLSTATE of its own, and its text is translated.
        where = getattr(getattr(context.original_exception, "diag", None), "source_function", None)
        if where == "RevalidateCachedQuery":
            context.is_disconnect = True


_READ_ONLY = "25006"
"""SQLSTATE of a write in a read-only transaction."""
_DISK_FULL = "53100"
"""SQLSTATE of a write for which the disk has no room."""
_CANNOT_HOLD = {None, "22001", "22003", "22021", "22P05"}
"""SQLSTATEs of a text that is too long, a number that is too large, and characters that no text can have; NUL is
refused by the driver itself, without one."""

_LACKING = {"42P01", "42703"}
"""SQLSTATEs of a table and of a column that are not there."""


@contextmanager
def transaction(engine: Engine) -> Iterator[Connection]:
    """One transaction, with a lost or unreachable database said in our own terms.

    Raises:
        BackendUnavailable: the database cannot be reached, went away, gave up waiting, broke a deadlock, takes no
            writes at this moment or has just been migrated; or every connection of the pool is in use.
        NotMigrated: a table or a column is not there yet.
        BadInput: a value that no column can hold, such as a text with a NUL or an id of thirty digits.
    """
    with translated(engine), engine.begin() as connection:
        yield connection


@contextmanager
def autocommit(engine: Engine) -> Iterator[Connection]:
    """A connection on which each statement is a transaction: no BEGIN and no COMMIT, which cost a round trip each.

    Raises:
        BackendUnavailable, NotMigrated, BadInput: as `transaction`.
    """
    with translated(engine), engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        yield connection


@contextmanager
def translated(engine: Engine | None = None) -> Iterator[None]:
    """Raises what `transaction` does, for code that holds a connection by itself; NotMigrated only with an `engine`, by
    which the database is asked."""
    try:
        yield
    except (OperationalError, InterfaceError, PoolTimeout) as error:
        raise unavailable(error) from error
    except DataError as error:
        if getattr(error.orig, "sqlstate", None) not in _CANNOT_HOLD:
            raise
        reason = str(error.orig).splitlines()[0]
        raise BadInput(f"A value cannot be stored: {reason}", detail=str(error)) from error
    except UnicodeEncodeError as error:
        raise BadInput("A value cannot be stored: a lone surrogate is not a character", detail=str(error)) from error
    except DBAPIError as error:
        # A replica that has not taken over yet refuses writes under a class of its own.
        if error.connection_invalidated or getattr(error.orig, "sqlstate", None) == _READ_ONLY:
            raise unavailable(error) from error
        if engine is not None and not_migrated(engine, error.orig):
            raise NotMigrated(detail=str(error.orig).splitlines()[0]) from error
        raise


def not_migrated(engine: Engine, error: BaseException | None) -> bool:
    """Whether the driver's error is about a table or a column that a migration will bring, and no mistake of ours."""
    if getattr(error, "sqlstate", None) not in _LACKING:
        return False
    with translated(), engine.connect() as connection:
        return migrations.behind(connection)


def unavailable(error: SQLAlchemyError) -> BackendUnavailable:
    """The database's absence as our error; the driver's words stay in the log."""
    told = getattr(error, "orig", None) or error  # without SQLAlchemy's own lines about where to read of it
    if getattr(told, "sqlstate", None) == _DISK_FULL:
        return OutOfSpace("The database's disk is full; work waits until there is room.", detail=str(told))
    return BackendUnavailable("The database cannot be reached; work waits and goes on by itself.", detail=str(told))
