"""The rows of the listings' page."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, text

from imgpipe_orchestration.listings.model import Status


@dataclass(frozen=True, slots=True)
class Listed:
    """One row of `image_queue`, with its item's `error_code`. Bytes and pixels of the original, and of the WebP once it
    is there."""

    id: int
    listing_title: str
    file_name: str
    status: Status
    error: str | None
    error_code: str | None
    original_name: str
    bytes: int
    width: int
    height: int
    webp_bytes: int | None
    webp_width: int | None
    webp_height: int | None
    created_at: datetime


def latest(connection: Connection, *, before: int | None = None, limit: int) -> list[Listed]:
    """The newest first; `before` is the last id of the previous page."""
    columns = ", ".join("w.error_code" if name == "error_code" else f"i.{name}" for name in Listed.__slots__)
    older = "where i.id < :before" if before is not None else ""
    query = text(f"""
        select {columns} from live_image_queue i left join work_items w on w.queue = 'listings' and w.item_id = i.id
        {older} order by i.id desc limit :limit
    """)
    rows = connection.execute(query, {"before": before, "limit": limit})
    return [Listed(**{**row._mapping, "status": Status(row.status)}) for row in rows]
