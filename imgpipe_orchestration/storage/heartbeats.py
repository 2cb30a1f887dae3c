"""When periodic work last happened."""

from typing import Any

from sqlalchemy import Connection, Engine, Row, text

from imgpipe_orchestration.storage.rows import transaction

DAEMON = "dagster-daemon"
"""Beats with the ticks of the media pipeline's sensor: `GET /health` and `imgpipe doctor` use it to tell whether
Dagster's daemon is running."""
DAEMON_SECONDS = 120.0
"""Age of that beat after which the daemon is overdue; it comes every 20 s."""


def beat(engine: Engine, name: str, *, seconds: float = 0) -> None:
    """Record that it happened now. With `seconds`, write at most once in that time."""
    with transaction(engine) as connection:
        connection.execute(_BEAT, {"name": name, "seconds": seconds})


def last(engine: Engine, name: str) -> Row[Any] | None:
    """When it last happened: `at`, and `age` in seconds, by the database's clock; None for never."""
    with transaction(engine) as connection:
        return connection.execute(_LAST, {"name": name}).one_or_none()


def ages(connection: Connection) -> dict[str, float]:
    """Seconds since each thing last happened."""
    rows = connection.execute(text("select name, extract(epoch from now() - beat_at)::float8 from heartbeats"))
    return {row[0]: row[1] for row in rows}


_BEAT = text("""
    insert into heartbeats as h (name) values (:name)
    on conflict (name) do update set beat_at = now()
    where h.beat_at <= now() - make_interval(secs => :seconds) or h.beat_at > now()
""")
"""One in the future is from before the clock was set back."""

_LAST = text(
    "select beat_at as at, extract(epoch from now() - beat_at)::float8 as age from heartbeats where name = :name"
)
