"""`pending_images` keeps its contract in PostgreSQL and in a MariaDB that holds the documents' own DDL."""

import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest
import requests
from sqlalchemy import Engine, event, text
from sqlalchemy.pool import QueuePool

from imgpipe_orchestration.errors import BackendUnavailable, BadInput
from imgpipe_orchestration.lifecycle import trash
from imgpipe_orchestration.media import intake, lifecycle, pending, store, uploads
from imgpipe_orchestration.media.model import PendingStatus
from imgpipe_orchestration.settings import Settings
from imgpipe_orchestration.storage import rows
from imgpipe_orchestration.storage.claims import State
from imgpipe_orchestration.storage.rows import transaction
from imgpipe_orchestration.wiring.services import Services
from imgpipe_orchestration_tests.devstack.running import wait_for
from imgpipe_orchestration_tests.locks import waiters
from imgpipe_orchestration_tests.media.conftest import Gateway, picture
from imgpipe_orchestration_tests.media.pending_tables import (
    PATH,
    add,
    engine,
    mariadb_server,
    pending_url,
    services,
    status,
)
from imgpipe_orchestration_tests.media.worker import today
from imgpipe_orchestration_tests.servers import MariaDB

__all__ = ["engine", "mariadb_server", "pending_url", "services"]


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
        (image,) = pending.find(connection)
    assert image.day == "2026-01-20"
    assert image.created_at.isoformat() == "2026-01-20T23:59:30+00:00"
    assert (image.original_name, image.mime_type) == (None, None)


def test_rows_of_no_state_that_is_known_are_counted_together(engine: Engine) -> None:
    insert = "insert ignore"  # MySQL then writes an empty status for a wrong one
    with transaction(engine) as connection:
        if engine.dialect.name == "postgresql":
            insert = "insert"
            loosen = "alter status drop not null, drop constraint pending_images_status_check"
            connection.execute(text(f"alter table pending_images {loosen}"))
        values = "(7, '/a', null), (7, '/b', ''), (7, '/c', 'failed')"
        connection.execute(text(f"{insert} into pending_images (user_id, image_path, status) values {values}"))
        counted = pending.figures(connection, [])
    assert (counted["unknown"], counted["failed"], counted["pending"]) == (2, 1, 0)


def test_what_was_deleted_before_it_was_processed_does_not_count_as_stuck(services: Services, engine: Engine) -> None:
    gone, left = add(engine, 1), add(engine, 2)
    media_id = lifecycle.register_now(services, gone, user=456)
    assert media_id is not None
    with transaction(engine) as connection:
        connection.execute(text("update pending_images set created_at = '2026-01-20 12:00:00'"))
        later = text("update pending_images set created_at = '2026-01-21 12:00:00' where id = :id")
        connection.execute(later, {"id": left})
    with transaction(services.engine) as connection:
        trash.put(services, connection, lifecycle.MEDIA, [media_id], who="user 456", why="", days=30)
        deleted = store.deleted_uploads(connection)
    assert deleted == {gone}
    with transaction(engine) as connection:
        counted = pending.figures(connection, list(deleted))
        waiting = pending.waiting(deleted)
        assert [one.id for one in pending.find(connection, waiting, limit=1)] == [left]
        assert (pending.count(connection, waiting), pending.count(connection, pending.waiting([]))) == (1, 2)
    assert (counted["pending"], counted["stuck"], counted["oldest_pending"].day) == (2, 1, 21)


def test_a_state_is_not_overwritten_where_it_must_not_be(engine: Engine) -> None:
    first, second = add(engine, 1), add(engine, 2)
    with transaction(engine) as connection:
        pending.mark(connection, [first], PendingStatus.COMPLETE)
        pending.mark(connection, [first, second], PendingStatus.FAILED, pending.t.c.status != "complete")
    assert (status(engine, first), status(engine, second)) == ("complete", "failed")


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


@pytest.mark.slow
def test_a_mariadb_that_does_not_answer_holds_nobody(mariadb_server: MariaDB, monkeypatch: pytest.MonkeyPatch) -> None:
    assert 2 * rows._SILENT_SECONDS <= 60, "a ping and a new connection take less than the proxy's patience"
    monkeypatch.setattr(rows, "_SILENT_SECONDS", 1)
    engine = rows.connect(f"{mariadb_server.url}/mysql")
    with pytest.raises(BackendUnavailable), transaction(engine) as connection:
        connection.execute(text("select sleep(60)"))
    with transaction(engine):
        pass
    assert mariadb_server.pid is not None
    server = psutil.Process(mariadb_server.pid)
    server.suspend()
    try:
        wait_for(lambda: server.status() == psutil.STATUS_STOPPED, "all its threads to stop")
        begun = time.monotonic()
        with pytest.raises(BackendUnavailable), transaction(engine):
            pass
        assert time.monotonic() - begun < 3
    finally:
        server.resume()
    engine.dispose()


@pytest.mark.slow
def test_what_a_mariadb_cannot_hold_is_refused_without_its_own_words(mariadb_server: MariaDB) -> None:
    mariadb_server.execute("create database latin", "create table latin.t (name varchar(9)) character set latin1")
    engine = rows.connect(f"{mariadb_server.url}/latin")
    for name in ("🏖.jpg", "much too long"):
        with pytest.raises(BadInput, match=r"^A value cannot be stored: [a-z ,']+$"), transaction(engine) as connection:
            connection.execute(text("insert into t values (:name)"), {"name": name})
    engine.dispose()


@pytest.mark.slow
def test_a_transaction_that_somebody_left_open_in_a_mariadb_ends(mariadb_server: MariaDB) -> None:
    engine = rows.connect(f"{mariadb_server.url}/mysql")
    with transaction(engine) as connection:
        assert connection.scalar(text("select @@session.idle_transaction_timeout")) == 60
    engine.dispose()


@pytest.mark.slow
def test_sessions_on_a_mariadb_that_is_read_only_since_a_failover_are_left(mariadb_server: MariaDB) -> None:
    mariadb_server.execute(
        "create database failover",
        "create table failover.f (n int)",
        "create user app",
        "grant all on failover.* to app",
    )
    engine = rows.connect(f"mysql://app@127.0.0.1:{mariadb_server.port}/failover")
    session = text("select connection_id()")
    with transaction(engine) as connection:
        before = connection.scalar(session)
    mariadb_server.execute("set global read_only = on")
    with pytest.raises(BackendUnavailable), transaction(engine) as connection:
        assert connection.scalar(session) == before
        connection.execute(text("insert into f values (1)"))
    mariadb_server.execute("set global read_only = off")
    with transaction(engine) as connection:
        assert connection.scalar(session) != before
        connection.execute(text("insert into f values (1)"))
    engine.dispose()


# --- through the pipeline ------------------------------------------------------------------------------------------


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
            wait_for(lambda: waiters(services.engine), "the worker to wait for the run", 30, every=0.02)
            with pending.joined(services, connection) as where:
                pending.mark(where, [1], PendingStatus.PENDING)
        assert answer.result(30).status_code == 200
    assert services.claims.find(store.MEDIA, 1).state == State.IGNORED


def test_a_private_upload_is_private_for_an_intake_that_comes_before_our_own_commit(
    make_gateway: Callable[..., Gateway], pending_url: str
) -> None:
    gateway = make_gateway(pending_images_database_url=pending_url)
    services, data = gateway.changed(), picture()
    presigned = uploads.presign(
        services, 456, kind="profile_image", content_type="image/jpeg", size=len(data), name="", private=True
    )
    services.media_bucket.put(f"staging/456/{presigned.upload_id}", data, content_type="image/jpeg")
    event.listen(services.engine, "commit", lambda _: intake.take_in(gateway.services))
    uploads.commit(services, 456, presigned.upload_id)
    intake.take_in(gateway.services)
    assert gateway.rows("select private from media_files") == [(True,)]


def test_a_foreign_database_that_does_not_answer_takes_no_connection_of_ours(settings: Settings) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent, ThreadPoolExecutor(16) as threads:
        url = f"mysql://u:p@127.0.0.1:{silent.getsockname()[1]}/other"
        services = Services(Settings(**{**settings.model_dump(), "pending_images_database_url": url}))
        pool, ours = services.pending_engine.pool, services.engine.pool
        assert isinstance(pool, QueuePool) and isinstance(ours, QueuePool)

        def ask(_: int) -> None:
            with pytest.raises(BackendUnavailable), pending.both(services):
                pass

        waiting = [threads.submit(ask, n) for n in range(16)]
        wait_for(lambda: pool.overflow() == 8, "as many as each pool has", seconds=60)
        taken = ours.checkedout()
        silent.close()
        for one in waiting:
            one.result()
        services.close()
    assert taken == 0
