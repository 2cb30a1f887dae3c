"""`pending_images` keeps its contract in PostgreSQL and in a MariaDB that holds the documents' own DDL."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from uuid import uuid4

import pytest
import requests
from click.testing import CliRunner
from sqlalchemy import Engine, event, text

from imgpipe_orchestration.cli import imgpipe
from imgpipe_orchestration.devstack.ports import free_port
from imgpipe_orchestration.errors import BackendUnavailable, NotFound
from imgpipe_orchestration.media import audit, direct_uploads, intake, pending, registering, store
from imgpipe_orchestration.media.model import PendingStatus
from imgpipe_orchestration.services import Services
from imgpipe_orchestration.settings import Settings
from imgpipe_orchestration.storage import rows
from imgpipe_orchestration.storage.claims import Item, State
from imgpipe_orchestration.storage.rows import transaction
from imgpipe_orchestration_tests.conftest import open_folder
from imgpipe_orchestration_tests.devstack.running import wait_for
from imgpipe_orchestration_tests.mariadb_server import PENDING_IMAGES, MariaDB, require_mariadb
from imgpipe_orchestration_tests.media.conftest import Gateway, picture, somebody_waits
from imgpipe_orchestration_tests.media.worker import today

PATH = "/temp_images/profiles/456-profile-{n}.jpg"


@pytest.fixture(scope="session")
def mariadb_server() -> Iterator[MariaDB]:
    require_mariadb()
    with open_folder() as folder, MariaDB(folder / "data", free_port()) as server:
        yield server


@pytest.fixture(params=["postgresql", pytest.param("mariadb", marks=pytest.mark.slow)])
def pending_url(request: pytest.FixtureRequest, postgres_url: str) -> str:
    """URL of a database that holds an empty `pending_images`."""
    if request.param == "postgresql":
        return postgres_url
    server: MariaDB = request.getfixturevalue("mariadb_server")
    name = f"pending_{uuid4().hex[:8]}"
    server.execute(f"CREATE DATABASE {name}", f"USE {name}", PENDING_IMAGES)
    return f"{server.url}/{name}"


@pytest.fixture
def services(settings: Settings, pending_url: str) -> Iterator[Services]:
    services = Services(Settings(**{**settings.model_dump(), "pending_images_database_url": pending_url}))
    yield services
    services.close()


@pytest.fixture
def engine(services: Services) -> Engine:
    return services.pending_engine


def add(engine: Engine, n: int, *, name: str = "photo.jpg") -> int:
    with transaction(engine) as connection:
        return pending.add(
            connection, user_id=456, image_path=PATH.format(n=n), original_name=name, mime_type="image/jpeg"
        )


def status(engine: Engine, image_id: int) -> str:
    with transaction(engine) as connection:
        return pending.get(connection, image_id).status


def ids(images: list[pending.PendingImage]) -> list[int]:
    return [image.id for image in images]


# --- the table -----------------------------------------------------------------------------------------------------


def test_a_row_comes_back_as_it_was_put_in(engine: Engine) -> None:
    image_id = add(engine, 1, name="Ferien in Göteborg 🏖.jpg")
    with transaction(engine) as connection:
        image = pending.get(connection, image_id)
    assert (image.user_id, image.image_path) == (456, PATH.format(n=1))
    assert (image.original_name, image.mime_type) == ("Ferien in Göteborg 🏖.jpg", "image/jpeg")
    assert (image.status, image.permanent_url) == (PendingStatus.PENDING, None)


def test_a_row_of_the_main_apis_own_sql_is_read_with_its_day_in_utc(engine: Engine) -> None:
    with transaction(engine) as connection:
        insert = "insert into pending_images (user_id, image_path, created_at) values (7, :path, :at)"
        connection.execute(text(insert), {"path": PATH.format(n=7), "at": "2026-01-20 23:59:30"})
        (image,) = pending.in_state(connection, PendingStatus.PENDING)
    assert image.day == "2026-01-20"
    assert image.created_at.isoformat() == "2026-01-20T23:59:30+00:00"
    assert (image.original_name, image.mime_type) == (None, None)


def test_the_time_of_a_new_row_is_now_in_utc_whatever_zone_the_server_is_in(engine: Engine) -> None:
    image_id = add(engine, 1)
    with transaction(engine) as connection:
        created_at = pending.get(connection, image_id).created_at
    assert abs((datetime.now(UTC) - created_at).total_seconds()) < 60


def test_waiting_gives_pages_of_what_is_pending_by_id(engine: Engine) -> None:
    rows = [add(engine, n) for n in range(5)]
    with transaction(engine) as connection:
        pending.mark(connection, [rows[1]], PendingStatus.FAILED)
        assert ids(pending.in_state(connection, PendingStatus.PENDING)) == [rows[0], rows[2], rows[3], rows[4]]
        assert ids(pending.in_state(connection, PendingStatus.PENDING, after=rows[0], limit=2)) == [rows[2], rows[3]]


def test_rows_are_found_by_their_paths(engine: Engine) -> None:
    rows = [add(engine, n) for n in range(3)]
    with transaction(engine) as connection:
        found = pending.by_paths(connection, [PATH.format(n=0), PATH.format(n=2), "/temp_images/none.jpg"])
    assert {image.id for image in found.values()} == {rows[0], rows[2]}


def test_a_processed_row_carries_its_media_id_in_both_columns(engine: Engine) -> None:
    image_id = add(engine, 1)
    with transaction(engine) as connection:
        pending.mark_processed(connection, image_id, "789")
        assert ids(pending.in_state(connection, PendingStatus.PROCESSED)) == [image_id]
        row = connection.execute(text("select permanent_url, thumbnail_url, status from pending_images")).one()
    assert tuple(row) == ("789", "789", "processed")


def test_a_state_is_not_overwritten_where_it_must_not_be(engine: Engine) -> None:
    first, second = add(engine, 1), add(engine, 2)
    with transaction(engine) as connection:
        pending.mark(connection, [first], PendingStatus.COMPLETE)
        pending.mark(connection, [first, second], PendingStatus.FAILED, unless=[PendingStatus.COMPLETE])
    assert (status(engine, first), status(engine, second)) == ("complete", "failed")


def test_a_row_that_is_not_there_is_said_to_be_missing(engine: Engine) -> None:
    with transaction(engine) as connection, pytest.raises(NotFound):
        pending.get(connection, 99)


def test_a_locked_row_makes_others_wait(engine: Engine) -> None:
    image_id = add(engine, 1)
    order: list[str] = []

    def other() -> None:
        with transaction(engine) as connection:
            pending.get(connection, image_id, lock=True)
            order.append("second")

    with transaction(engine) as connection:
        pending.get(connection, image_id, lock=True)
        thread = threading.Thread(target=other)
        thread.start()
        thread.join(0.3)
        order.append("first")
    thread.join(10)
    assert order == ["first", "second"]


# --- taking in -----------------------------------------------------------------------------------------------------


def test_every_new_row_is_registered_once(services: Services, engine: Engine) -> None:
    rows = [add(engine, n) for n in range(3)]
    assert intake.take_in(services) == 3
    assert intake.first_new(services) is None
    assert intake.take_in(services) == 0
    last = add(engine, 9)
    found = intake.first_new(services)
    assert found is not None and found.id == last
    assert intake.take_in(services) == 1
    with transaction(services.engine) as connection:
        known = connection.execute(text("select main_api_id, id from media_files order by 1")).all()
    assert [row.main_api_id for row in known] == [*rows, last]
    assert [row.id - known[0].id for row in known] == [0, 1, 2, 3], "what is known already costs no ids"
    assert services.claims.counts()[store.MEDIA.name].waiting == 4


def test_a_row_that_was_committed_late_is_taken_in_too(services: Services, engine: Engine) -> None:
    with engine.connect() as late:
        late_id = pending.add(
            late, user_id=1, image_path=PATH.format(n=0), original_name="late.jpg", mime_type="image/jpeg"
        )
        early = add(engine, 1)
        assert late_id < early
        assert intake.take_in(services) == 1
        late.commit()
    assert intake.first_new(services) is None, "its id is below the mark"
    assert intake.take_in(services) == 1


def test_ids_that_begin_anew_are_new_uploads(services: Services, engine: Engine) -> None:
    def at(id_: int, n: int) -> None:
        with transaction(engine) as connection:
            query = text("insert into pending_images (id, user_id, image_path) values (:id, 1, :path)")
            connection.execute(query, {"id": id_, "path": PATH.format(n=n)})

    at(500, 1)
    at(900, 2)
    assert intake.take_in(services) == 2
    with transaction(engine) as connection:
        connection.execute(text("delete from pending_images"))
    at(500, 3)
    assert intake.take_in(services, everything=True) == 1
    at(501, 4)
    assert intake.first_new(services) is not None
    assert intake.take_in(services) == 1
    with transaction(services.engine) as connection:
        known = connection.execute(text("select main_api_id, image_path from media_files where main_api_id > 0"))
        assert {row.main_api_id: row.image_path for row in known} == {
            500: PATH.format(n=3),
            501: PATH.format(n=4),
            900: PATH.format(n=2),
        }


def test_an_upload_never_shows_the_image_that_had_its_id_before(gateway: Gateway) -> None:
    gateway.upload(1, profile_image=picture(seed=1))
    gateway.run_due()
    with gateway.services.engine.begin() as connection:
        connection.exec_driver_sql("truncate pending_images restart identity")
    gateway.upload(2, profile_image=picture(seed=2))
    assert gateway.rows("select id from pending_images") == [(1,)]
    intake.take_in(gateway.services, everything=True)
    audit.reopened(gateway.services)
    gateway.run_due()
    assert gateway.rows("select status, permanent_url from pending_images") == [("complete", "2")]
    assert gateway.rows("select id, user_id, main_api_id from media_files order by id") == [(1, 1, -1), (2, 2, 1)]


def test_a_path_that_is_none_of_ours_fails_its_row_and_no_other(services: Services, engine: Engine) -> None:
    with transaction(engine) as connection:
        bad = pending.add(connection, user_id=1, image_path="/etc/passwd", original_name="x", mime_type="image/jpeg")
    good = add(engine, 1)
    assert intake.take_in(services) == 1
    assert (status(engine, bad), status(engine, good)) == ("failed", "pending")


ODD = {
    "postgresql": (
        "created_at = 'infinity'",
        "created_at = '-infinity'",
        "created_at = '20000-01-01'",
        "created_at = '0044-03-15 BC'",
    ),
    "mysql": (
        "created_at = null",
        "created_at = 0",
        "original_name = repeat('long ', 51), mime_type = repeat('x', 100)",
    ),
}
ODD_EVERYWHERE = (
    "original_name = null, mime_type = null, permanent_url = null, thumbnail_url = null",
    "original_name = '', mime_type = '', permanent_url = '', thumbnail_url = ''",
    """permanent_url = '{"a": [null, {"b": "\\u0000"}]}', thumbnail_url = 'http://[', original_name = '{}'""",
    "user_id = -1",
    "user_id = 9223372036854775807",
    "created_at = '1970-01-02 00:00:01'",
    "created_at = '2037-12-31 00:00:01'",
)
UNUSABLE: dict[str, tuple[str, ...]] = {"postgresql": (), "mysql": ("original_name = 'a\\0b.jpg'",)}
UNUSABLE_EVERYWHERE = ("image_path = ''", "image_path = repeat('/x', 127)", "image_path = '/temp_images/profiles/'")


def add_changed(engine: Engine, changes: Iterable[str]) -> dict[str, int]:
    """A row for each change, as somebody's own SQL leaves it; MySQL checks nothing, as it did before 5.7."""
    rows = {}
    with transaction(engine) as connection:
        if engine.dialect.name != "postgresql":
            connection.exec_driver_sql("set sql_mode = ''")
        for n, change in enumerate(changes):
            rows[change] = pending.add(
                connection, user_id=1, image_path=PATH.format(n=n), original_name="a.jpg", mime_type="image/jpeg"
            )
            connection.exec_driver_sql(f"update pending_images set {change} where id = {rows[change]}")
    return rows


def test_odd_rows_hold_up_nobody(services: Services, engine: Engine) -> None:
    dialect = engine.dialect.name
    taken, refused = ODD_EVERYWHERE + ODD[dialect], UNUSABLE_EVERYWHERE + UNUSABLE[dialect]
    rows = add_changed(engine, taken + refused)
    good = add(engine, 99)
    assert intake.first_new(services) is not None
    assert intake.take_in(services) == len(taken) + 1
    states = {change: status(engine, row) for change, row in rows.items()}
    assert states == dict.fromkeys(taken, "pending") | dict.fromkeys(refused, "failed")
    assert status(engine, good) == "pending"
    assert intake.first_new(services) is None


def test_a_refused_row_is_named_with_its_reason(
    services: Services, engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    (row,) = add_changed(engine, ["image_path = ''"]).values()
    assert intake.take_in(services) == 0
    (record,) = (one for one in caplog.records if one.message == "pending image refused")
    assert (vars(record)["pending_id"], vars(record)["error"]) == (row, "'' does not say what kind of image it is")


def test_odd_rows_are_listed_and_counted_as_any_other(make_gateway: Callable[..., Gateway], pending_url: str) -> None:
    gateway = make_gateway(pending_images_database_url=pending_url)
    engine = gateway.services.pending_engine
    rows = add_changed(engine, ODD_EVERYWHERE + ODD[engine.dialect.name])
    listed = gateway.get("/api/media/pending/all", **gateway.as_worker).json()["images"]
    assert [image["id"] for image in listed] == list(rows.values())
    assert gateway.get("/").status_code == 200
    environment = {name: value for name, value in gateway.settings.environment().items() if value}
    told = CliRunner().invoke(imgpipe, ["status", "--json"], env=environment)
    assert told.exit_code == 0, told.output
    assert json.loads(told.stdout)["pending_images"]["pending"] == len(rows)


@pytest.mark.slow
@pytest.mark.parametrize("pending_url", ["mariadb"], indirect=True)
@pytest.mark.parametrize("state", ["null", "'lost'"])
def test_a_row_in_no_state_is_nobodys_work(make_gateway: Callable[..., Gateway], pending_url: str, state: str) -> None:
    gateway = make_gateway(pending_images_database_url=pending_url)
    path = gateway.upload(456, profile_image=picture()).json()["profile_image_path"]
    with transaction(gateway.services.pending_engine) as connection:
        connection.exec_driver_sql("set sql_mode = ''")
        connection.exec_driver_sql(f"update pending_images set status = {state}")
    assert intake.take_in(gateway.services) == 0
    assert gateway.me()["profile_image_path"] == path
    url = f"{gateway.url}/api/media/complete/1"
    told = gateway.session.post(url, json={"media_id": "7"}, headers=gateway.as_worker, timeout=30)
    assert told.status_code == 409


def test_a_batch_larger_than_a_page_is_taken_in_whole(
    services: Services, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pending, "PAGE", 3)
    for n in range(8):
        add(engine, n)
    assert intake.take_in(services) == 8


def test_an_intake_that_waits_for_another_keeps_no_tenant_waiting(services: Services, engine: Engine) -> None:
    with transaction(engine) as connection:
        for user in (1, 2):
            path = PATH.format(n=user)
            pending.add(connection, user_id=user, image_path=path, original_name="a.jpg", mime_type="image/jpeg")
        _, second = pending.in_state(connection, PendingStatus.PENDING)

    with ThreadPoolExecutor(1) as pool, services.engine.connect() as other:
        media_id = registering.register(other, second, "")
        assert media_id is not None
        taken = pool.submit(intake.take_in, services)
        wait_for(lambda: somebody_waits(services.engine) or taken.done(), "the intake to wait", 30, every=0.02)
        services.claims.enqueue(other, store.MEDIA, [Item(media_id, "2", second.day), Item(99, "1", second.day)])
        other.commit()
        assert taken.result(30) == 1


def test_an_unreachable_database_is_said_in_our_terms(settings: Settings) -> None:
    url = f"mysql://root@127.0.0.1:{free_port()}/pending"
    away = Services(Settings(**{**settings.model_dump(), "pending_images_database_url": url}))
    with pytest.raises(BackendUnavailable):
        intake.take_in(away)
    away.close()


@pytest.mark.slow
def test_a_mariadb_that_does_not_answer_holds_nobody(mariadb_server: MariaDB, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "_SILENT_SECONDS", 1)
    engine = rows.connect(f"{mariadb_server.url}/mysql")
    with pytest.raises(BackendUnavailable), transaction(engine) as connection:
        connection.execute(text("select sleep(60)"))
    engine.dispose()


@pytest.mark.slow
def test_a_transaction_that_somebody_left_open_in_a_mariadb_ends(mariadb_server: MariaDB) -> None:
    engine = rows.connect(f"{mariadb_server.url}/mysql")
    with transaction(engine) as connection:
        assert connection.scalar(text("select @@session.idle_transaction_timeout")) == 60
    engine.dispose()


# --- through the pipeline ------------------------------------------------------------------------------------------


def test_an_upload_becomes_a_smart_url(make_gateway: Callable[..., Gateway], pending_url: str) -> None:
    gateway = make_gateway(pending_images_database_url=pending_url)
    engine = gateway.services.pending_engine
    path = gateway.upload(456, profile_image=picture()).json()["profile_image_path"]
    (image,) = gateway.get("/api/media/pending/all", **gateway.as_worker).json()["images"]
    assert image["image_path"] == path
    gateway.run_due()
    with transaction(engine) as connection:
        row = connection.execute(text("select status, permanent_url, thumbnail_url from pending_images")).one()
    assert row.status == "complete"
    assert row.permanent_url == row.thumbnail_url
    assert gateway.me()["profile_image_path"].endswith(f"/api/images/{row.permanent_url}?size=detail")


def test_an_outside_worker_fails_an_image(make_gateway: Callable[..., Gateway], pending_url: str) -> None:
    gateway = make_gateway(pending_images_database_url=pending_url)
    gateway.upload(456, profile_image=picture())
    url = f"{gateway.url}/api/media/cleanup/1"
    assert gateway.session.delete(url, headers=gateway.as_worker, timeout=30).status_code == 200
    assert status(gateway.services.pending_engine, 1) == "failed"


@pytest.mark.parametrize("outcome", ["cleaned up", "processed elsewhere"])
def test_an_outside_worker_and_a_run_that_settle_one_image_do_not_wait_for_each_other(
    make_gateway: Callable[..., Gateway], pending_url: str, outcome: str
) -> None:
    gateway = make_gateway(pending_images_database_url=pending_url)
    services = gateway.services
    gateway.upload(456, profile_image=picture())
    intake.take_in(services)
    (claim,) = services.claims.claim(store.MEDIA, "run-1", 1, partition=today())

    def told() -> requests.Response:
        if outcome == "cleaned up":
            return requests.delete(f"{gateway.url}/api/media/cleanup/1", headers=gateway.as_worker, timeout=30)
        body = {"media_id": "theirs-1"}
        return requests.post(f"{gateway.url}/api/media/complete/1", json=body, headers=gateway.as_worker, timeout=30)

    with ThreadPoolExecutor(1) as pool:
        with services.claims.fenced(claim) as connection:  # as a run does when an image fails
            answer = pool.submit(told)
            wait_for(lambda: somebody_waits(services.engine), "the worker to wait for the run", 30, every=0.02)
            with pending.joined(services, connection) as where:
                pending.mark(where, [1], PendingStatus.PENDING)
        assert answer.result(30).status_code == 200
    assert services.claims.find(store.MEDIA, 1)[0] == State.IGNORED


def test_an_outside_worker_that_is_refused_ends_none_of_our_own_work(
    make_gateway: Callable[..., Gateway], pending_url: str
) -> None:
    gateway = make_gateway(pending_images_database_url=pending_url)
    services = gateway.services
    gateway.upload(456, profile_image=picture())
    intake.take_in(services)
    with transaction(services.pending_engine) as connection:
        pending.mark_processed(connection, 1, "ours-1")
    cleaned = requests.delete(f"{gateway.url}/api/media/cleanup/1", headers=gateway.as_worker, timeout=30)
    body = {"media_id": "theirs-1"}
    told = requests.post(f"{gateway.url}/api/media/complete/1", json=body, headers=gateway.as_worker, timeout=30)
    assert (cleaned.status_code, told.status_code) == (409, 409)
    assert services.claims.find(store.MEDIA, 1)[0] == State.WAITING
    assert gateway.rows("select status, error from media_files") == [("downloading", None)]


def test_a_private_upload_is_private_for_an_intake_that_comes_before_our_own_commit(
    make_gateway: Callable[..., Gateway], pending_url: str
) -> None:
    gateway = make_gateway(pending_images_database_url=pending_url)
    services, data = Services(gateway.settings), picture()
    invited = direct_uploads.invite(
        services, 456, kind="profile_image", content_type="image/jpeg", size=len(data), name="", private=True
    )
    services.media_bucket.put(f"staging/456/{invited.id}", data, content_type="image/jpeg")
    event.listen(services.engine, "commit", lambda _: intake.take_in(gateway.services))
    direct_uploads.commit(services, 456, invited.id)
    services.close()
    intake.take_in(gateway.services)
    assert gateway.rows("select private from media_files") == [(True,)]
