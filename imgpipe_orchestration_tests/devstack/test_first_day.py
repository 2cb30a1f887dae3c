"""Where the daily partitions begin: Dagster shows every earlier day without images as missing."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import psycopg

from imgpipe_orchestration.devstack.first_day import first_day
from imgpipe_orchestration.devstack.postgres import Postgres


def test_it_is_the_day_before_the_oldest_upload_of_any_kind(postgres_url: str) -> None:
    yesterday = (datetime.now(UTC).date() - timedelta(days=1)).isoformat()
    assert first_day(postgres_url) == yesterday
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        for wrong in ("-infinity", "0001-01-01", "2099-01-01", "infinity"):
            row = "insert into pending_images (user_id, image_path, created_at) values (1, '/x', %s::timestamptz)"
            connection.execute(row, [wrong])
        assert first_day(postgres_url) == yesterday
        connection.execute(
            "insert into media_files (main_api_id, user_id, data_type, kind, image_path, upload_day)"
            " values (1, 1, 'profile', 'profile', '/x', '2026-03-01')"
        )
        assert first_day(postgres_url) == "2026-02-28"
        connection.execute(
            "insert into pending_images (user_id, image_path, created_at) values (1, '/x', '2026-01-04 00:30+01')"
        )
        assert first_day(postgres_url.replace("postgresql:", "postgresql+psycopg:")) == "2026-01-02", "by UTC"


def test_without_tables_or_a_database_it_is_yesterday(postgres_server: Postgres) -> None:
    yesterday = (datetime.now(UTC).date() - timedelta(days=1)).isoformat()
    assert first_day(postgres_server.url) == yesterday
    assert first_day(postgres_server.database_url("nothing_of_that_name")) == yesterday
