"""Faults made for real: kill -9 between steps, a bucket that refuses deletes, restore against purge, many clients."""

import threading
import time
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing

import pytest
import requests
from sqlalchemy import Connection

from imgpipe_orchestration.lifecycle import trash
from imgpipe_orchestration.media.lifecycle import MEDIA
from imgpipe_orchestration.operations import deletion, erasure, sweep
from imgpipe_orchestration.storage import deletions
from imgpipe_orchestration.storage.deletions import PURGES
from imgpipe_orchestration.storage.rows import transaction
from imgpipe_orchestration.wiring.services import Services
from imgpipe_orchestration_tests.devstack.running import wait_for
from imgpipe_orchestration_tests.lifecycle.conftest import USER, call, delete, finished, keys, purge
from imgpipe_orchestration_tests.lifecycle.worker import killing_itself
from imgpipe_orchestration_tests.locks import waiters
from imgpipe_orchestration_tests.media.conftest import Gateway
from imgpipe_orchestration_tests.partners.wire import reply, serving

MOST_STEPS = 60


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("what", ["purge", "erasure"])
def test_killed_between_any_two_steps_nothing_half_gone_is_shown_and_the_next_run_ends(
    gateway: Gateway, what: str
) -> None:
    media_id, other = finished(gateway, seed=1), finished(gateway, seed=2, user=7)
    theirs = {key for key in keys(gateway) if f"/{other}-" in key or f"/{other}." in key}
    erasure_id = None
    if what == "purge":
        delete(gateway, media_id, purge="true")
    else:
        erasure_id = call(gateway, "DELETE", "/users/me", USER).json()["erasure_id"]
    step = 1
    with killing_itself(gateway.settings) as killed:
        while killed("purge", f"killed-{step}", step):
            gateway.services.claims.release(f"killed-{step}")  # as the sensor of failed runs does
            assert gateway.get(f"/serve/{media_id}").status_code == 410
            assert gateway.get(f"/serve/{other}").status_code == 200
            gateway.services.claims.hasten(PURGES)
            gateway.services.claims.hasten(erasure.ERASURES)
            step += 1
            assert step < MOST_STEPS
    assert step > 3
    assert keys(gateway) == theirs
    assert sweep.of_everything(gateway.services).clean
    if erasure_id:
        found = call(gateway, "GET", f"/api/erasures/{erasure_id}").json()
        assert (found["state"], found["verified"]) == ("done", {"objects": 0, "rows": 0})


def test_a_bucket_that_refuses_deletes_is_told_and_tried_again(gateway: Gateway) -> None:
    media_id = finished(gateway)
    delete(gateway, media_id, purge="true")
    said = b"<Error><Code>AccessDenied</Code><Message>no</Message></Error>"
    with (
        serving(lambda h, _: reply(h, said, 403, Content_Type="application/xml")) as server,
        closing(Services(gateway.settings.model_copy(update={"s3_endpoint": server.url}))) as services,
    ):
        assert deletion.run(services, "refused")["not_purged"] == 1
    assert any("AccessDenied" in one.error for one in gateway.services.claims.held_up())
    assert gateway.rows("select purged_at from deletions")[0].purged_at is None
    assert gateway.rows("select from media_files where id = :id", id=media_id)
    gateway.services.claims.hasten(PURGES)
    assert purge(gateway)["purged"] == 1
    assert keys(gateway) == set()


def test_of_restore_and_purge_at_once_one_wins_and_the_other_is_told(gateway: Gateway) -> None:
    for seed in range(1, 6):
        media_id = finished(gateway, seed=seed)
        delete(gateway, media_id)
        gateway.rows("update deletions set purge_after = now() + interval '20 ms' where purged_at is null")
        ready = threading.Barrier(2)

        def restore(media_id: int = media_id, ready: threading.Barrier = ready) -> int:
            ready.wait()
            return call(gateway, "POST", f"/api/media/{media_id}/restore").status_code

        def run(seed: int = seed, ready: threading.Barrier = ready) -> None:
            ready.wait()
            purge(gateway, f"purge-{seed}")

        with ThreadPoolExecutor(2) as pool:
            restored, purged = pool.submit(restore), pool.submit(run)
            purged.result()
        purge(gateway, f"after-{seed}")
        shown = gateway.get(f"/serve/{media_id}").status_code
        assert (restored.result(), shown) in {(200, 200), (410, 410)}
        if shown == 410:
            assert not any(f"/{media_id}-" in key or f"/{media_id}." in key for key in keys(gateway))


def test_fifty_clients_get_the_image_whole_or_a_410(gateway: Gateway) -> None:
    media_id = finished(gateway)
    whole = gateway.get(f"/serve/{media_id}?format=jpeg").content
    stop = threading.Event()

    def ask() -> set[int]:
        seen = set()
        with requests.Session() as session:
            while not stop.is_set():
                answer = session.get(f"{gateway.url}/serve/{media_id}?format=jpeg", timeout=30)
                assert answer.status_code == 410 or answer.content == whole
                seen.add(answer.status_code)
        return seen

    with ThreadPoolExecutor(50) as pool:
        asking = [pool.submit(ask) for _ in range(50)]
        delete(gateway, media_id, purge="true")
        purge(gateway)
        assert gateway.get(f"/serve/{media_id}?format=jpeg").status_code == 410
        stop.set()
        assert {status for one in asking for status in one.result()} <= {200, 410}


def test_the_clock_of_the_worker_does_not_matter(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    media_id = finished(gateway)
    delete(gateway, media_id)
    gateway.rows("update deletions set purge_after = now() + interval '30 minutes'")
    ahead = time.time
    with monkeypatch.context() as patch:
        patch.setattr(time, "time", lambda: ahead() + 3600)
        assert purge(gateway)["purged"] == 0
    assert call(gateway, "POST", f"/api/media/{media_id}/restore", USER).status_code == 200


def test_what_is_deleted_again_in_the_moment_in_which_it_is_purged_waits_for_the_purge(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    services, media_id = gateway.services, finished(gateway)
    delete(gateway, media_id, purge="true")
    end = deletions.end

    def again() -> list[str]:
        with transaction(services.engine) as connection:
            return trash.put(services, connection, MEDIA, [media_id], who="Bo", why="asked for", days=1)

    with ThreadPoolExecutor(1) as pool:

        def late(connection: Connection, objects: Mapping[int, int]) -> None:
            late_comers.append(pool.submit(again))
            wait_for(lambda: waiters(services.engine) > 0, "the deletion to wait for the purge")
            end(connection, objects)

        late_comers: list[Future[list[str]]] = []
        monkeypatch.setattr(deletions, "end", late)
        assert purge(gateway)["purged"] == 1
        assert late_comers[0].result() == []
