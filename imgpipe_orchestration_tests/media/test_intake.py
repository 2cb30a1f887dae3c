"""Rows of `pending_images` become work: each once, whatever is in it and whoever wrote it."""

import json
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import pytest
from sqlalchemy import Engine, text

from imgpipe_orchestration.devstack.ports import free_port
from imgpipe_orchestration.errors import BackendUnavailable
from imgpipe_orchestration.media import checks, intake, pending, store
from imgpipe_orchestration.settings import Settings
from imgpipe_orchestration.storage.claims import Item
from imgpipe_orchestration.storage.rows import transaction
from imgpipe_orchestration.wiring.services import Services
from imgpipe_orchestration_tests.cli.conftest import Run, run
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

__all__ = ["engine", "mariadb_server", "pending_url", "run", "services"]


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
    gateway.finish(1, profile_image=picture(seed=1))
    gateway.rows("truncate pending_images restart identity")
    gateway.upload(2, profile_image=picture(seed=2))
    assert gateway.rows("select id from pending_images") == [(1,)]
    intake.take_in(gateway.services, everything=True)
    checks.reopen(gateway.services)
    gateway.run_due()
    assert gateway.rows("select status, permanent_url from pending_images") == [("complete", "2")]
    assert gateway.rows("select id, user_id, main_api_id from media_files order by id") == [(1, 1, -1), (2, 2, 1)]


def test_a_path_that_is_none_of_ours_fails_its_row_and_no_other(services: Services, engine: Engine) -> None:
    with transaction(engine) as connection:
        bad = pending.add(connection, user_id=1, image_path="/etc/passwd", original_name="x", mime_type="image/jpeg")
    good = add(engine, 1)
    assert intake.take_in(services) == 1
    assert (status(engine, bad), status(engine, good)) == ("failed", "pending")


def test_an_image_is_as_old_as_its_upload_and_no_younger_than_now(services: Services, engine: Engine) -> None:
    old, coming = add(engine, 1), add(engine, 2)
    with transaction(engine) as connection:
        for id_, at in ((old, "2026-01-20 23:59:30"), (coming, "2037-12-31 00:00:01")):
            connection.execute(text("update pending_images set created_at = :at where id = :id"), {"id": id_, "at": at})
    assert intake.take_in(services) == 2
    with transaction(services.engine) as connection:
        query = text("select main_api_id, created_at, created_at <= now() as over from media_files")
        known = {row.main_api_id: row for row in connection.execute(query)}
    assert known[old].created_at == datetime(2026, 1, 20, 23, 59, 30, tzinfo=UTC)
    assert known[coming].over


def test_a_batch_larger_than_a_page_is_taken_in_whole(
    services: Services, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pending, "PAGE_SIZE", 3)
    for n in range(8):
        add(engine, n)
    assert intake.take_in(services) == 8


def test_an_intake_that_waits_for_another_keeps_no_tenant_waiting(services: Services, engine: Engine) -> None:
    with transaction(engine) as connection:
        for user in (1, 2):
            path = PATH.format(n=user)
            pending.add(connection, user_id=user, image_path=path, original_name="a.jpg", mime_type="image/jpeg")
        _, second = pending.find(connection)

    with ThreadPoolExecutor(1) as pool, services.engine.connect() as other:
        media_id = intake.register(services, other, second)
        assert media_id is not None
        taken = pool.submit(intake.take_in, services)
        wait_for(lambda: waiters(services.engine) or taken.done(), "the intake to wait", 30, every=0.02)
        services.claims.enqueue(other, store.MEDIA, [Item(media_id, "2", second.day), Item(99, "1", second.day)])
        other.commit()
        assert taken.result(30) == 1


def test_an_unreachable_database_is_said_in_our_terms(settings: Settings, run: Run) -> None:
    url = f"mysql://root@127.0.0.1:{free_port()}/pending"
    away = Services(Settings(**{**settings.model_dump(), "pending_images_database_url": url}))
    with pytest.raises(BackendUnavailable):
        intake.take_in(away)
    with transaction(away.engine) as connection:
        away.claims.enqueue(connection, store.MEDIA, [Item(1)])
    told = run("status", "--json", PENDING_IMAGES_DATABASE_URL=url)
    assert told.exit_code == 0, told.output
    assert json.loads(told.stdout)["queues"], "they are in PostgreSQL"
    shown = run("status", "--check", PENDING_IMAGES_DATABASE_URL=url)
    assert shown.exit_code == 1
    assert "PENDING_IMAGES_DATABASE_URL: The database cannot be reached" in shown.output
    away.close()
