"""A full disk: uploads are refused in words, what was accepted stays whole, and all goes on when there is room."""

import os
import signal
import tempfile
from pathlib import Path

import jwt
import psutil
import pytest
import requests

from imgpipe_orchestration.cli.diagnosis import Verdict
from imgpipe_orchestration.cli.doctor import diagnose
from imgpipe_orchestration.devstack.postgres import Postgres
from imgpipe_orchestration.gateway.app import create_app
from imgpipe_orchestration.listings import runs
from imgpipe_orchestration.settings import Settings
from imgpipe_orchestration.wiring.services import Services
from imgpipe_orchestration_tests.client import Client
from imgpipe_orchestration_tests.devstack.running import up, wait_for
from imgpipe_orchestration_tests.listings.conftest import photo
from imgpipe_orchestration_tests.parts import stop
from imgpipe_orchestration_tests.recovery.conftest import Accepted, count, fill, path_of, servers, small_disk, upload

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(os.geteuid() != 0, reason="only root makes a small disk"),
]


def uploaded(client: Client, number: int) -> tuple[list[Accepted], list[int]]:
    answers = [upload(client, photo(640, 480, seed=seed)) for seed in range(1, number + 1)]
    return [one for _, one in answers if one], [status for status, _ in answers]


def assert_all_is_finished(client: Client, settings: Settings, kept: list[Accepted]) -> None:
    """There is room again: uploads are taken, and all that ever were are processed and served."""
    late, statuses = uploaded(client, 3)
    assert statuses == [200] * 3
    kept = [*kept, *late]
    services = Services(settings)
    assert count(services, "select count(*) from image_queue") == len(kept)
    runs.run(services, "run", done := runs.Drained())
    assert done.processed == len(kept)
    services.close()
    for one in kept:
        answer = client.get(path_of(one))
        assert (answer.status_code, answer.headers["content-type"]) == (200, "image/webp")


def test_a_full_object_store_refuses_uploads_and_loses_none(open_folder: Path) -> None:
    with (
        small_disk(open_folder / "disk", 8) as disk,
        servers(open_folder, objects=disk) as (_, _, settings),
        Client(create_app(settings.model_copy(update={"upload_max_bytes": 1_000_000}))) as client,
    ):
        kept, statuses = uploaded(client, 3)
        assert statuses == [200] * 3
        filler = fill(disk, leave=100_000)
        more, statuses = uploaded(client, 8)
        kept += more
        assert set(statuses) == {200, 507} or set(statuses) == {507}
        health = client.get("/health")
        assert (health.status_code, client.get("/health/live").status_code) == (503, 200)
        assert "no room left" in health.json()["checks"]["object_store"]
        for one in kept:
            assert client.get(path_of(one)).content == one.data
        filler.unlink()
        assert_all_is_finished(client, settings, kept)
        assert client.get("/health").status_code == 200


def test_a_full_database_refuses_uploads_and_loses_none(open_folder: Path) -> None:
    with (
        small_disk(open_folder / "disk", 220) as disk,
        servers(open_folder, postgres=disk) as (rows, _, settings),
        Client(create_app(settings)) as client,
    ):
        kept, statuses = uploaded(client, 3)
        assert statuses == [200] * 3
        filler = fill(disk)
        said = next(finding for finding in diagnose(settings) if finding.what == "database")
        assert said.verdict is Verdict.BAD and said.do.startswith("Make room"), said
        statuses = []
        for seed in range(4000):
            status, one = upload(client, photo(16, 16, seed=seed))
            statuses.append(status)
            kept += [one] if one else []
            if status != 200:
                break
        assert statuses[-1] in {503, 507}
        filler.unlink()
        revive(rows)
        assert {finding.what: finding.verdict for finding in diagnose(settings)}["database"] is Verdict.OK
        assert_all_is_finished(client, settings, kept)


def test_a_stack_on_a_full_disk_lives_on(open_folder: Path) -> None:
    """Its output, logs and stack.json lie there as well."""
    with small_disk(open_folder / "disk", 200) as disk, up(disk / "data", "--no-dagster", "--port", "0") as running:
        filler = fill(disk)
        health = f"{running.environment['GATEWAY_URL']}/health/live"
        killed = running.part("gateway")["pid"]
        os.kill(killed, signal.SIGKILL)
        wait_for(lambda: not psutil.pid_exists(killed), "the end of the gateway")
        wait_for(lambda: answers(health), "the gateway on the full disk")
        assert running.part("gateway")["pid"] == killed  # as it was last written
        filler.unlink()
        os.kill(running.part("s3")["pid"], signal.SIGKILL)
        wait_for(lambda: running.part("s3")["restarts"] == 1, "stack.json, written at the next restart")
        assert running.part("gateway")["restarts"] == 1
        assert running.process.poll() is None


def answers(url: str) -> bool:
    try:
        return bool(requests.get(url, timeout=5).ok)
    except requests.RequestException:
        return False


ROUTES = [
    ("PATCH", "/users/me", "profile_image"),
    ("POST", "/api/upload/listing_image", "images"),
    ("POST", "/batch-analysis/images", "files"),
]


@pytest.mark.parametrize(("method", "path", "field"), ROUTES)
def test_a_full_temporary_folder_refuses_large_uploads_in_words(
    settings: Settings, open_folder: Path, monkeypatch: pytest.MonkeyPatch, method: str, path: str, field: str
) -> None:
    large = photo(640, 480) + bytes(2_000_000)
    token = jwt.encode({"sub": "7", "exp": 4_000_000_000}, settings.user_jwt_secret, "HS256")
    with small_disk(open_folder / "disk", 1) as disk, Client(create_app(settings)) as client:
        monkeypatch.setattr(tempfile, "tempdir", str(disk))
        answer = client.request(
            method,
            path,
            files={field: ("a.jpg", large, "image/jpeg")},
            data={"organization_id": "org", "listing_title": "Bike"} if method == "POST" else None,
            headers={} if path == "/batch-analysis/images" else {"Authorization": f"Bearer {token}"},
        )
    assert (answer.status_code, answer.json()["code"]) == (507, "out-of-space"), answer.text


def revive(rows: Postgres) -> None:
    """PostgreSQL ends itself when its log cannot grow; a supervisor starts it again."""
    if rows.exit_code() is not None or not rows.answers():
        stop(rows)
        rows.start()
        rows.wait_until_ready()
