"""A gateway and its runs with `pending_images` in a MariaDB, by the documents' own DDL, and all else in PostgreSQL."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import pymysql
import pytest

from imgpipe_orchestration.devstack.ports import LOOPBACK, free_port
from imgpipe_orchestration.errors import BackendUnavailable
from imgpipe_orchestration_tests.conftest import open_folder
from imgpipe_orchestration_tests.devstack.running import wait_for
from imgpipe_orchestration_tests.media.conftest import Gateway, picture
from imgpipe_orchestration_tests.parts import running
from imgpipe_orchestration_tests.servers import PENDING_IMAGES, MariaDB

pytestmark = pytest.mark.slow


@pytest.fixture
def mariadb() -> Iterator[MariaDB]:
    with open_folder() as folder, running(MariaDB(folder / "data", free_port())) as server:
        server.execute("CREATE DATABASE oaf", "USE oaf", PENDING_IMAGES)
        yield server


@pytest.fixture
def gateway(make_gateway: Callable[..., Gateway], mariadb: MariaDB) -> Gateway:
    return make_gateway(pending_images_database_url=f"{mariadb.url}/oaf")


def rows(mariadb: MariaDB, query: str, *values: Any) -> list[dict[str, Any]]:
    """What the main API would read, or write, with its own client."""
    session = pymysql.connect(host=LOOPBACK, port=mariadb.port, user="root", database="oaf", autocommit=True)
    with session, session.cursor(pymysql.cursors.DictCursor) as cursor:
        cursor.execute(query, values)
        return list(cursor.fetchall())


def states(mariadb: MariaDB) -> list[str]:
    return [row["status"] for row in rows(mariadb, "SELECT status FROM pending_images ORDER BY id")]


def test_an_upload_becomes_a_smart_url_and_its_row_is_complete(gateway: Gateway, mariadb: MariaDB) -> None:
    accepted = gateway.upload(1, profile_image=picture(1200, 800), logo_image=picture(400, 300, seed=2)).json()
    assert states(mariadb) == ["pending", "pending"]
    (counted,) = rows(mariadb, "SELECT COUNT(*) AS n FROM pending_images WHERE status = 'pending'")
    assert gateway.get("/api/media/pending/all", **gateway.as_worker).json()["total"] == counted["n"] == 2
    stuck = "SELECT * FROM pending_images WHERE status = 'pending' AND created_at < NOW() - INTERVAL 1 HOUR"
    assert rows(mariadb, stuck) == []
    gateway.run_due()
    assert states(mariadb) == ["complete", "complete"]
    (row,) = rows(mariadb, "SELECT * FROM pending_images WHERE image_path = %s", accepted["profile_image_path"])
    assert row["permanent_url"] == row["thumbnail_url"]
    assert row["updated_at"] >= row["created_at"]
    url = gateway.me(1)["profile_image_path"]
    assert url == f"{gateway.url}/api/images/{row['permanent_url']}?size=detail"
    served = gateway.get(url.removeprefix(gateway.url), Accept="image/avif")
    assert (served.status_code, served.headers["content-type"]) == (200, "image/avif")
    assert gateway.get(accepted["profile_image_path"]).status_code == 404
    assert gateway.rows("select count(*) from pending_images") == [(0,)], "nothing of it goes into PostgreSQL"
    assert gateway.get("/health").status_code == 200


def test_a_database_that_goes_away_in_the_middle_costs_nothing(gateway: Gateway, mariadb: MariaDB) -> None:
    for seed in range(4):
        gateway.upload(1, site_image=picture(1600, 1200, seed=100 + seed))
    begun = "select 1 from work_items where queue = 'media' and state = 'claimed'"
    with ThreadPoolExecutor(1) as pool:
        run = pool.submit(gateway.run_due)
        wait_for(lambda: gateway.rows(begun), "the run to hold them", 30, every=0.05)
        mariadb.kill()
        assert gateway.upload(1, site_image=picture()).status_code == 503
        mariadb.start()
        mariadb.wait_until_ready()
        with suppress(BackendUnavailable):  # if it had just begun; its sensor would give back what it held
            run.result(120)
    gateway.services.claims.release("run-1")

    def complete() -> bool:
        gateway.run_due("run-2")
        return states(mariadb) == ["complete"] * 4

    wait_for(complete, "all four to be complete")
    done = "select count(*) from media_files where user_id = 1 and status = 'completed'"
    assert gateway.rows(done) == [(4,)]
