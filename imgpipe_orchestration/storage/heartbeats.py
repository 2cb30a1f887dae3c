"""When periodic work last happened."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, Engine, text

from imgpipe_orchestration.storage.rows import transaction

DAEMON = "dagster-daemon"
"""Beats with the ticks of the media pipeline's sensor: `GET /health` tells by it whether Dagster's daemon works."""


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """`at` and `age` (seconds) are by the database's clock."""

    at: datetime
    age: float


def beat(engine: Engine, name: str, *, seconds: float = 0) -> None:
    """Note that it happened now, for what happens often only once in so many seconds."""
    with transaction(engine) as connection:
        connection.execute(_BEAT, {"name": name, "seconds": seconds})


def last(engine: Engine, name: str) -> Heartbeat | None:
    """When it last happened; None for never."""
    with transaction(engine) as connection:
        row = connection.execute(_LAST, {"name": name}).one_or_none()
    return Heartbeat(row.beat_at, float(row.age)) if row else None


def ages(connection: Connection) -> dict[str, float]:
    """Seconds since each thing last happened."""
    return {row.name: float(row.age) for row in connection.execute(_AGES)}


_AGES = text("select name, extract(epoch from now() - beat_at) as age from heartbeats order by name")

_BEAT = text("""
    insert into heartbeats (name)
    select :name where not exists (
        select from heartbeats where name = :name and beat_at > now() - make_interval(secs => :seconds)
    )
    on conflict (name) do update set beat_at = now()
""")

_LAST = text("select beat_at, extract(epoch from now() - beat_at) as age from heartbeats where name = :name")
