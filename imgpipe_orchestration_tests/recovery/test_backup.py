"""A backup taken while uploads go on, by the commands in docs/operations.md, restored to a consistent point."""

import os
import re
import shlex
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import dagster as dg
import pytest
import yaml
from psycopg.conninfo import conninfo_to_dict

from imgpipe_orchestration.devstack.postgres import _binaries
from imgpipe_orchestration.devstack.s3 import _rclone
from imgpipe_orchestration.gateway.app import create_app
from imgpipe_orchestration.listings import runs
from imgpipe_orchestration.operations.tidying import collect_garbage
from imgpipe_orchestration.settings import Settings
from imgpipe_orchestration.wiring.services import Services
from imgpipe_orchestration_tests.client import Client
from imgpipe_orchestration_tests.listings.conftest import photo
from imgpipe_orchestration_tests.recovery.conftest import BUCKETS, Accepted, count, path_of, servers, upload

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

PAGE = Path(__file__).parents[2] / "docs" / "operations.md"


def commands(title: str) -> list[str]:
    """The commands under a heading of the page."""
    section = re.search(rf"^### {title}\n(.*?)(?=^##)", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    assert section, title
    return [line.strip() for line in section[1].splitlines() if line.startswith("    ")]


def run(title: str, settings: Settings, folder: Path) -> None:
    """The page's commands, with its buckets being ours."""
    databases = folder / "pg_service.conf"
    urls = {"imgpipe": settings.database_url, "dagster": settings.dagster_pg_url.replace("+psycopg2", "")}
    parts = {
        name: "".join(f"{key}={value}\n" for key, value in conninfo_to_dict(url).items()) for name, url in urls.items()
    }
    databases.write_text("".join(f"[{name}]\n{part}" for name, part in parts.items()))
    environ = {
        **os.environ,
        "PATH": f"{_binaries()}:{Path(_rclone()[0]).parent}:{os.environ['PATH']}",
        "BACKUP": str(folder),
        "PGSERVICEFILE": str(databases),
        "RCLONE_CONFIG": "",
        "RCLONE_CONFIG_STORE_TYPE": "s3",
        "RCLONE_CONFIG_STORE_PROVIDER": "Other",
        "RCLONE_CONFIG_STORE_ENDPOINT": settings.s3_endpoint,
        "RCLONE_CONFIG_STORE_ACCESS_KEY_ID": settings.s3_access_key,
        "RCLONE_CONFIG_STORE_SECRET_ACCESS_KEY": settings.s3_secret_key,
        "BUCKETS": " ".join(BUCKETS.values()),
    }
    for command in commands(title):
        if command.startswith("mongo"):
            continue  # MongoDB's own tools, which Debian does not have
        done = subprocess.run(["bash", "-euc", command], env=environ, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{shlex.quote(command)}\n{done.stderr}"


@contextmanager
def history(settings: Settings) -> Iterator[dg.DagsterInstance]:
    """Dagster over the settings' own database for it."""
    with tempfile.TemporaryDirectory() as home:
        storage = {"postgres": {"postgres_url": settings.dagster_pg_url}}
        written = yaml.safe_dump({"telemetry": {"enabled": False}, "storage": storage})
        (Path(home) / "dagster.yaml").write_text(written)
        with dg.DagsterInstance.from_config(home) as instance:
            yield instance


@dg.job
def nothing() -> None:
    """A run that leaves its history."""


def test_what_a_backup_holds_is_served_and_finished_after_its_restore(open_folder: Path) -> None:
    backup = open_folder / "backup"
    backup.mkdir()
    accepted: list[Accepted] = []
    stop = threading.Event()
    with servers(open_folder / "old") as (_, _, settings), Client(create_app(settings)) as client:

        def uploads() -> None:
            seed = 0
            while not stop.is_set():
                seed += 1
                _, one = upload(client, photo(seed=seed))
                assert one is not None
                accepted.append(one)

        with history(settings) as instance:
            assert nothing.execute_in_process(instance=instance).success
        services = Services(settings)
        for seed in range(1000, 1005):
            _, one = upload(client, photo(seed=seed))
            assert one is not None
            accepted.append(one)
        runs.run(services, "run", done := runs.Drained())
        assert done.processed == 5
        services.close()
        thread = threading.Thread(target=uploads)
        thread.start()
        try:
            run("Backup", settings, backup)
        finally:
            stop.set()
            thread.join()

    with servers(open_folder / "new", buckets=False) as (_, _, settings):
        run("Restore", settings, backup)
        with history(settings) as instance:
            assert [run.job_name for run in instance.get_runs()] == ["nothing"]
        services = Services(settings)
        assert count(services, "select nextval('media_files_id_seq')") > 1_000_000, "no id is given out twice"
        held = count(services, "select count(*) from image_queue")
        assert 5 <= held <= len(accepted)
        everywhere = collect_garbage(services, act=False, grace_hours=0)
        assert [found.missing for found in everywhere] == [0] * len(BUCKETS), "also in the buckets that were empty"
        found = next(found for found in everywhere if found.name == "listings")
        assert found.garbage <= 2 * (len(accepted) - held)
        runs.run(services, "run", runs.Drained())
        assert count(services, "select count(*) from image_queue where status = 'processed'") == held
        with Client(create_app(settings)) as client:
            served = [client.get(path_of(one)) for one in accepted]
        assert sum(answer.status_code == 200 for answer in served) == held
        assert all(answer.headers["content-type"] == "image/webp" for answer in served if answer.status_code == 200)
        (clean,) = collect_garbage(services, ["listings"], act=True, grace_hours=0)
        assert clean.deleted == clean.garbage == found.garbage
        services.close()
