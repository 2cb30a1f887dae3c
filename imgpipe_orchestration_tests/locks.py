"""Who waits for a lock in a test's database."""

from sqlalchemy import Engine, text

from imgpipe_orchestration.storage.rows import autocommit

_WAITERS = text("select count(*) from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()")


def waiters(engine: Engine) -> int:
    """Connections that wait for a lock now. Not in a transaction, which would see the same ones each time."""
    with autocommit(engine) as connection:
        return int(connection.execute(_WAITERS).scalar_one())
