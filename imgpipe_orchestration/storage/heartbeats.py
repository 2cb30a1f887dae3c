"""Signs of life: when something that should happen regularly last happened."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Engine, text

from imgpipe_orchestration.storage.rows import transaction


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """`at` by the database's clock, and `age` in seconds by the same."""

    at: datetime
    age: float
    detail: dict[str, Any]


def beat(engine: Engine, name: str, detail: Mapping[str, Any] | None = None) -> None:
    """It happened now."""
    with transaction(engine) as connection:
        connection.execute(_BEAT, {"name": name, "detail": json.dumps(detail or {})})


def last(engine: Engine, name: str) -> Heartbeat | None:
    """When it last happened; None: never."""
    with transaction(engine) as connection:
        row = connection.execute(_LAST, {"name": name}).one_or_none()
    return Heartbeat(row.beat_at, float(row.age), row.detail) if row else None


def ages(connection: Connection) -> dict[str, float]:
    """Seconds since each thing last happened."""
    return {row.name: float(row.age) for row in connection.execute(_AGES)}


_AGES = text("select name, extract(epoch from now() - beat_at) as age from heartbeats order by name")

_BEAT = text("""
    insert into heartbeats (name, detail) values (:name, cast(:detail as jsonb))
    on conflict (name) do update set beat_at = now(), detail = excluded.detail
""")

_LAST = text("""
    select beat_at, detail, extract(epoch from now() - beat_at) as age from heartbeats where name = :name
""")
