"""The running stack with `pending_images` in a MariaDB, by the documents' own DDL, and all else in PostgreSQL."""

from collections.abc import Iterator
from typing import Any

import psycopg
import pymysql
import pytest
import requests

from imgpipe_orchestration.devstack.ports import LOOPBACK, free_port
from imgpipe_orchestration_tests.conftest import open_folder
from imgpipe_orchestration_tests.devstack.running import imgpipe, wait_for
from imgpipe_orchestration_tests.end_to_end.conftest import Stack, started
from imgpipe_orchestration_tests.media.conftest import picture
from imgpipe_orchestration_tests.parts import running
from imgpipe_orchestration_tests.servers import PENDING_IMAGES, MariaDB

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def mariadb() -> Iterator[MariaDB]:
    with open_folder() as folder, running(MariaDB(folder / "data", free_port())) as server:
        server.execute("CREATE DATABASE oaf", "USE oaf", PENDING_IMAGES)
        yield server


@pytest.fixture(scope="module")
def stack(mariadb: MariaDB) -> Iterator[Stack]:
    with started(PENDING_IMAGES_DATABASE_URL=f"{mariadb.url}/oaf") as stack:
        yield stack


def rows(mariadb: MariaDB, query: str, *values: Any) -> list[dict[str, Any]]:
    """What the main API would read, with its own client."""
    with (
        pymysql.connect(host=LOOPBACK, port=mariadb.port, user="root", database="oaf") as session,
        session.cursor(pymysql.cursors.DictCursor) as cursor,
    ):
        cursor.execute(query, values)
        return list(cursor.fetchall())


def state(mariadb: MariaDB, user: int) -> list[str]:
    return [row["status"] for row in rows(mariadb, "SELECT status FROM pending_images WHERE user_id = %s", user)]


def test_an_upload_becomes_a_smart_url_and_its_row_is_complete(stack: Stack, mariadb: MariaDB) -> None:
    user = stack.new_user()
    accepted = stack.upload(user, profile_image=picture(1200, 800, seed=user), logo_image=picture(400, 300, seed=9))
    assert sorted(state(mariadb, user)) == ["pending", "pending"]
    wait_for(lambda: state(mariadb, user) == ["complete", "complete"], "both rows to be complete", 90)
    row = rows(mariadb, "SELECT * FROM pending_images WHERE image_path = %s", accepted["profile_image_path"])[0]
    assert row["permanent_url"] == row["thumbnail_url"]
    assert row["updated_at"] >= row["created_at"]
    url = stack.me(user)["profile_image_path"]
    assert url == f"{stack.gateway}/api/images/{row['permanent_url']}?size=detail"
    served = stack.session.get(url, headers={"Accept": "image/avif"}, timeout=30)
    assert (served.status_code, served.headers["content-type"]) == (200, "image/avif")
    assert stack.session.get(stack.gateway + accepted["profile_image_path"], timeout=30).status_code == 404


def test_the_documents_queries_and_calls_see_the_same_table(stack: Stack, mariadb: MariaDB) -> None:
    headers = {"Authorization": f"Bearer {stack.environment['MEDIA_API_KEY']}"}
    missing = stack.session.post(
        f"{stack.gateway}/api/media/complete/999999", json={"media_id": "1"}, headers=headers, timeout=30
    )
    assert missing.status_code == 404
    stuck = "SELECT * FROM pending_images WHERE status = 'pending' AND created_at < NOW() - INTERVAL 1 HOUR"
    assert rows(mariadb, stuck) == []
    waiting = stack.session.get(f"{stack.gateway}/api/media/pending/all", headers=headers, timeout=30).json()
    (counted,) = rows(mariadb, "SELECT COUNT(*) AS n FROM pending_images WHERE status = 'pending'")
    assert waiting["total"] == counted["n"]


def test_a_row_that_the_main_api_wrote_itself_is_worked_on(stack: Stack, mariadb: MariaDB) -> None:
    """Its file cannot be fetched from anywhere, so the row ends as failed; it is not left behind."""
    path = "/temp_images/profiles/77-profile-1704110400-1.jpg"
    insert = "INSERT INTO pending_images (user_id, image_path) VALUES (77, %s)"
    with pymysql.connect(host=LOOPBACK, port=mariadb.port, user="root", database="oaf", autocommit=True) as session:
        session.cursor().execute(insert, (path,))
    wait_for(lambda: state(mariadb, 77) == ["failed"], "the row to fail", 120)


def test_a_database_that_goes_away_in_the_middle_costs_nothing(stack: Stack, mariadb: MariaDB) -> None:
    user = stack.new_user()
    for seed in range(4):
        stack.upload(user, site_image=picture(1600, 1200, seed=100 + seed))
    begun = "select 1 from work_items where queue = 'media' and state = 'claimed'"
    wait_for(lambda: stack.rows(begun), "the run to hold them", 60)
    mariadb.kill()
    refused = stack.session.patch(
        f"{stack.gateway}/users/me",
        files={"site_image": ("a.jpg", picture(), "image/jpeg")},
        headers=stack.as_user(user),
        timeout=60,
    )
    assert refused.status_code == 503, refused.text
    mariadb.start()
    mariadb.wait_until_ready()
    wait_for(lambda: state(mariadb, user) == ["complete"] * 4, "all four to be complete", 150)
    done = "select count(*) from media_files where user_id = %s and status = 'completed'"
    assert stack.rows(done, user) == [(4,)]


def test_nothing_of_it_went_into_postgresql_and_the_doctor_is_content(stack: Stack) -> None:
    with psycopg.connect(stack.environment["DATABASE_URL"]) as connection:
        assert connection.execute("select count(*) from pending_images").fetchone() == (0,)
    assert requests.get(f"{stack.gateway}/health", timeout=10).status_code == 200
    doctor = imgpipe("doctor", "--data", str(stack.up.data_dir))
    assert doctor.returncode == 0, doctor.stdout
