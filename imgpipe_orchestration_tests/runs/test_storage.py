"""Dagster's storage as dagster.yaml names it: what it keeps from one question to the next."""

from __future__ import annotations

from pathlib import Path

import dagster as dg
import pytest
from sqlalchemy import event

from imgpipe_orchestration.devstack.postgres import Postgres

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:dagster.*", "ignore::sqlalchemy.exc.SAWarning")


def opened(url: str, home: Path) -> dg.DagsterInstance:
    (home / "dagster.yaml").write_text(
        "storage: {custom: {module: imgpipe_orchestration.runs.storage, class: PooledPostgresStorage,"
        f" config: {{postgres_url: '{url}'}}}}}}\ntelemetry: {{enabled: false}}\n"
    )
    return dg.DagsterInstance.from_config(str(home))


def look(instance: dg.DagsterInstance) -> None:
    """What the daemon and the code server do for a tick."""
    instance.get_instigator_state("origin", "selector")
    instance.get_ticks("origin", "selector", limit=1)
    instance.get_run_records(dg.RunsFilter(job_name="nothing"), limit=1)
    instance.get_backfills(limit=1)


def test_the_catalogue_is_read_once_in_a_process(postgres_server: Postgres, tmp_path: Path) -> None:
    url = postgres_server.ensure_database("dagster_storage")
    statements: list[str] = []
    with opened(url, tmp_path) as first:
        event.listen(first.run_storage._engine, "before_cursor_execute", lambda *said: statements.append(said[2]))
        look(first)
    assert any("pg_catalog" in one for one in statements)
    statements.clear()
    with opened(url, tmp_path) as second:  # as the code server does it for each tick
        look(second)
    assert statements
    assert [one for one in statements if "pg_catalog" in one or "secondary_indexes" in one] == []
