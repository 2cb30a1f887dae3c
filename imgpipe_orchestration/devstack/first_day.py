"""MEDIA_FIRST_DAY of a stack, from its rows: Dagster shows every day from this one on that has no images as missing."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

from imgpipe_orchestration.devstack.process import PROBE_SECONDS

_OLDEST = """
    select min(day) from (
        select min(upload_day) as day from media_files
        union all select (min(created_at) at time zone 'UTC')::date from pending_images
            where created_at between '2020-01-02' and now()
        union all select (min(created_at) at time zone 'UTC')::date from image_queue
    ) as days
"""
# Another program writes pending_images: a wrong clock or '-infinity' must not decide. 2020 is the setting's default.


def first_day(database_url: str) -> str:
    """The day (UTC) before the oldest upload, or before today when there is none: a backfill over two days can be tried
    at once. So too for a database that has no tables or cannot be reached; the latter stops the start a moment later.
    """
    import psycopg

    url = "postgresql://" + database_url.partition("://")[2]  # without SQLAlchemy's driver
    try:
        with psycopg.connect(url, connect_timeout=PROBE_SECONDS) as connection:
            row = connection.execute(_OLDEST).fetchone()
    except (psycopg.OperationalError, psycopg.errors.UndefinedTable):
        row = None
    oldest: date = (row and row[0]) or datetime.now(UTC).date()
    return (oldest - timedelta(days=1)).isoformat()
