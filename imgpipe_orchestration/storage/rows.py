"""Connections to PostgreSQL (and to MySQL or MariaDB, where `pending_images` may live)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Connection, Engine, MetaData, create_engine
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError

from imgpipe_orchestration.errors import BackendUnavailable, SettingsError

metadata = MetaData()
"""Every table of the project; features add theirs in their own modules."""

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
        raise SettingsError(f"{setting}: {parsed.drivername!r} is no database we can use", field=setting)
    timeouts = {"connect_timeout": 5}
    if driver.startswith("postgresql"):
        # A statement that takes a minute is a fault; a worker must not hang on it past its lease.
        options = {"options": "-c statement_timeout=60000 -c timezone=UTC", "application_name": "imgpipe"}
    else:
        options = {"init_command": "SET time_zone = '+00:00', SESSION innodb_lock_wait_timeout = 20"}
    return create_engine(
        parsed.set(drivername=driver),
        pool_size=pool_size,
        max_overflow=pool_size,
        pool_pre_ping=True,
        pool_recycle=1800,
        connect_args={**timeouts, **options},
    )


@contextmanager
def transaction(engine: Engine) -> Iterator[Connection]:
    """One transaction, with a lost or unreachable database said in our own terms.

    Raises:
        BackendUnavailable: the database cannot be reached, went away or gave up waiting.
    """
    try:
        with engine.begin() as connection:
            yield connection
    except (OperationalError, InterfaceError) as error:
        raise unavailable(error) from error
    except DBAPIError as error:
        if error.connection_invalidated:
            raise unavailable(error) from error
        raise


def unavailable(error: DBAPIError) -> BackendUnavailable:
    """The database's absence as our error; the driver's words stay in the log."""
    return BackendUnavailable("The database cannot be reached; work waits and goes on by itself.", detail=str(error))
