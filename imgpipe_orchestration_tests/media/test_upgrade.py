"""What the schema of the release before holds is served and worked off after `imgpipe migrate`."""

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest
from click.testing import CliRunner
from psycopg import sql

from imgpipe_orchestration.cli import imgpipe
from imgpipe_orchestration.devstack.postgres import Postgres, _binaries
from imgpipe_orchestration.listings import runs
from imgpipe_orchestration.media.store import MEDIA
from imgpipe_orchestration.storage.migrations import pending, upgrade
from imgpipe_orchestration.storage.rows import connect
from imgpipe_orchestration_tests.media.conftest import Gateway, picture
from imgpipe_orchestration_tests.parts import ensure_database

NEWER = """
    select table_name, array_agg(column_name::text) from information_schema.columns
    where table_schema = 'public' group by table_name
"""
COLUMNS = """
    select table_name, array_agg(column_name::text) from information_schema.columns
    where table_schema = 'public' and is_generated = 'NEVER' and table_name <> 'alembic_version'
        and table_name in (select tablename from pg_tables where schemaname = 'public')
    group by table_name
"""
SEQUENCES = """
    select table_name, column_name from information_schema.columns
    where table_schema = 'public' and (is_identity = 'YES' or column_default like 'nextval%')
"""


@pytest.fixture
def databases(postgres_server: Postgres) -> Iterator[tuple[str, str]]:
    """Two empty databases: the old release's, and what its dump is restored into."""
    names = [f"{kind}_{uuid4().hex[:8]}" for kind in ("old", "restored")]
    yield ensure_database(postgres_server, names[0]), ensure_database(postgres_server, names[1])
    with psycopg.connect(postgres_server.url, autocommit=True) as connection:
        for name in names:
            connection.execute(sql.SQL("drop database {} with (force)").format(sql.Identifier(name)))


def copied(source: str, target: str) -> None:
    """Every row, as far as both schemas have a column for it."""
    with psycopg.connect(source) as there, psycopg.connect(target) as here:
        here.execute("set session_replication_role = replica")  # neither triggers nor the order of foreign keys
        known = dict(there.execute(NEWER).fetchall())
        for table, columns in here.execute(COLUMNS).fetchall():
            if table not in known:
                continue
            names = sql.SQL(", ").join(sql.Identifier(name) for name in columns if name in known[table])
            # By a query, because what was a table may be a view of the newer schema.
            read = sql.SQL("copy (select {} from {}) to stdout").format(names, sql.Identifier(table))
            write = sql.SQL("copy {} ({}) from stdin").format(sql.Identifier(table), names)
            here.execute(sql.SQL("delete from {}").format(sql.Identifier(table)))
            with there.cursor().copy(read) as rows, here.cursor().copy(write) as out:
                for row in rows:
                    out.write(row)
        for table, column in here.execute(SEQUENCES).fetchall():
            last = sql.SQL("select setval(pg_get_serial_sequence({}, {}), coalesce(max({}), 1)) from {}")
            here.execute(
                last.format(sql.Literal(table), sql.Literal(column), sql.Identifier(column), sql.Identifier(table))
            )


def listed(gateway: Gateway, *photos: bytes) -> list[str]:
    """Upload listings; the paths of their images."""
    files = [("images", (f"{number}.jpg", data)) for number, data in enumerate(photos)]
    url = f"{gateway.url}/api/upload/listing_image"
    answer = gateway.session.post(url, data={"listing_title": "Bike"}, files=files, timeout=30).json()
    return ["/" + image["url"].split("/", 3)[3] for image in answer["data"]["images"]]


def test_an_older_releases_dump_is_served_and_worked_off(
    make_gateway: Callable[..., Gateway], databases: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, restored = databases
    before = make_gateway()
    before.upload(1, profile_image=picture(seed=1))
    before.upload(2, profile_image=picture(seed=2)[:2500])  # broken: a dead letter
    before.run_due()
    done = listed(before, picture(seed=3))
    runs.run(before.services, "run", runs.Drained())
    before.upload(3, profile_image=picture(seed=4))
    waiting = listed(before, picture(seed=5))
    assert before.services.claims.counts()["media"].failed == 1

    engine = connect(old)
    head = pending(engine)[-1]
    upgrade(engine, pending(engine)[-2])
    copied(before.settings.database_url, old)
    engine.dispose()
    dump = tmp_path / "old.dump"
    subprocess.run([_binaries() / "pg_dump", "--format=custom", f"--file={dump}", old], check=True)
    subprocess.run([_binaries() / "pg_restore", "--no-owner", f"--dbname={restored}", dump], check=True)

    monkeypatch.setenv("DATABASE_URL", restored)
    asked = CliRunner().invoke(imgpipe, ["migrate", "--check", "--data", str(tmp_path)])
    assert (asked.exit_code, asked.output) == (1, f"pending: {head}\n")
    assert CliRunner().invoke(imgpipe, ["migrate", "--data", str(tmp_path)]).exit_code == 0

    after = make_gateway(database_url=restored, pending_images_database_url=restored)
    assert after.get("/serve/1?size=small").headers["Content-Type"] == "image/jpeg"
    assert after.get(done[0]).headers["Content-Type"] == "image/webp"
    assert after.get("/api/media/analysis/1", **after.as_worker).json()["success"] is True
    after.run_due("run-after")
    runs.run(after.services, "run-after", runs.Drained())
    assert after.get("/serve/3?size=small").headers["Content-Type"] == "image/jpeg"
    assert after.get(waiting[0]).headers["Content-Type"] == "image/webp"
    assert after.me(3)["profile_image_path"].endswith("/api/images/3?size=detail")
    assert after.services.claims.requeue(MEDIA) == [2]
    assert after.upload(4, profile_image=picture(seed=6)).status_code == 200
    after.run_due("run-later")
    assert {tuple(row) for row in after.rows("select id, status from media_files")} == {
        (1, "completed"),
        (2, "failed"),
        (3, "completed"),
        (4, "completed"),
    }
