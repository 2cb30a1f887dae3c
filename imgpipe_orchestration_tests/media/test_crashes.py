"""A worker killed with -9 in the middle of each stage: nothing is lost, stored twice or bought twice."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from imgpipe_orchestration.media import intake, store
from imgpipe_orchestration.media.checks import reopen
from imgpipe_orchestration.moderation.verdicts import JUDGE
from imgpipe_orchestration.operations import existing
from imgpipe_orchestration.storage.claims import MAX_LOSSES
from imgpipe_orchestration_tests.conftest import StandInAccess
from imgpipe_orchestration_tests.devstack.running import wait_for
from imgpipe_orchestration_tests.media.conftest import Gateway, picture
from imgpipe_orchestration_tests.media.test_pipeline import assert_nothing_orphaned, make_due

IMAGES = 4

MOMENTS = {
    "retrieve_file": "select count(*) from media_files where bulk_path is not null",
    "ai_visual_analysis": "select count(*) from paid_calls where state = 'committed'",
    "resize_optimize": "select count(distinct media_id) from media_variants",
    "update_callback": "select count(*) from pending_images where status = 'processed'",
    "replace_urls": "select count(*) from pending_images where status = 'complete'",
}
"""For each stage what can be counted while it is under way; the worker is killed when the first one is there."""

HELD = """
    create function held() returns trigger language plpgsql as $$ begin perform pg_sleep(10); return new; end $$;
    create trigger held before update on pending_images for each row
        when (new.id > 1 and new.status = '{status}') execute function held()
"""
"""Holds the end of a worker for ten seconds: it must not be over before it is killed."""


@pytest.mark.timeout(400)
@pytest.mark.parametrize(
    "stage", [pytest.param(stage, marks=[] if stage == "resize_optimize" else pytest.mark.slow) for stage in MOMENTS]
)
def test_a_worker_killed_in_the_middle_of_a_stage_costs_one_lease_and_nothing_else(
    make_gateway: Callable[..., Gateway], standins: StandInAccess, tmp_path: Path, stage: str
) -> None:
    gateway = make_gateway(**standins.seeing, lease_seconds=1.5)
    for user in range(1, IMAGES + 1):
        gateway.upload(user, profile_image=picture(1600, 1200, seed=user))
    status = "complete" if stage == "replace_urls" else "processed"
    for statement in HELD.format(status=status).split(";\n"):
        gateway.rows(statement)
    environ = {**os.environ, **gateway.settings.environment(), "IMGPIPE_DATA_DIR": str(tmp_path)}
    command = [sys.executable, "-m", "imgpipe_orchestration_tests.media.worker", "doomed"]
    worker = subprocess.Popen(command, env=environ, start_new_session=True)
    try:
        begun = lambda: gateway.rows(MOMENTS[stage])[0][0] > 0 or worker.poll() is not None  # noqa: E731
        wait_for(begun, f"{stage} to begin", 200, every=0.002)  # often, or the stage would be over
        assert worker.poll() is None, "the worker ended before it could be killed"
    finally:
        os.kill(worker.pid, signal.SIGKILL)
        worker.wait()
        # PostgreSQL does not notice the dead client while it sleeps.
        sleeping = "from pg_stat_activity where datname = current_database() and wait_event = 'PgSleep'"
        gateway.rows(f"select pg_terminate_backend(pid) {sleeping}")
        gateway.rows("drop trigger held on pending_images")
    if stage in ("retrieve_file", "ai_visual_analysis", "resize_optimize"):
        assert gateway.rows("select count(*) from work_items where state = 'claimed'")[0][0] > 0
    settled = "select count(*) from pending_images where status <> 'complete'"
    queues = (store.MEDIA, store.URLS, JUDGE)

    def all_done() -> bool:
        if gateway.rows(settled)[0][0] == 0 and not gateway.rows("select 1 from work_items where state = 'claimed'"):
            return True
        if any(gateway.services.claims.due_partitions(queue) for queue in queues):
            gateway.run_due("heir")
            existing.run(gateway.services, "heir")
        return False

    wait_for(all_done, "the heir to finish")
    for user in range(1, IMAGES + 1):
        url = gateway.me(user)["profile_image_path"]
        assert gateway.session.get(url, timeout=30).status_code == 200
    assert_nothing_orphaned(gateway)
    calls = [call["input_hash"] for call in standins.calls("google") + standins.calls("openai")]
    # An answer that was under way when the worker died cannot be had back; the journal shows it as lost.
    under_way = gateway.rows("select count(*) from paid_call_uses where outcome = 'lost'")[0][0]
    assert len(calls) - len(set(calls)) <= under_way
    bought = 4 * IMAGES  # labels, a description, a vector, a verdict
    assert gateway.rows("select count(*) from paid_calls where state = 'committed'")[0][0] == bought
    assert len(set(calls)) == bought


@pytest.fixture
def given_up(gateway: Gateway) -> Gateway:
    """With an upload whose workers died."""
    gateway.upload(1, profile_image=picture())
    intake.take_in(gateway.services)
    gateway.rows(
        "update work_items set state = 'claimed', owner = 'dead', claimed_at = now(), due_at = now(), losses = :n "
        "returning 1",
        n=MAX_LOSSES,
    )
    gateway.run_due()
    return gateway


def test_an_upload_that_is_given_up_because_its_workers_died_has_failed(given_up: Gateway) -> None:
    assert given_up.rows("select status from media_files") == [("failed",)]
    assert given_up.rows("select status from pending_images") == [("failed",)]
    assert given_up.services.claims.requeue(store.MEDIA) == [1]
    given_up.run_due("run-2")
    assert given_up.rows("select status from pending_images") == [("complete",)]


def test_an_upload_that_was_given_up_and_is_set_back_later_stays_so_until_it_is_tried_again(given_up: Gateway) -> None:
    given_up.rows("update work_items set updated_at = updated_at - interval '11 minutes' returning 1")
    given_up.rows("update pending_images set status = 'pending' returning 1")
    given_up.run_due("run-2")
    assert given_up.rows("select status from pending_images") == [("pending",)]
    assert reopen(given_up.services) == 1
    given_up.run_due("run-3")
    assert given_up.rows("select status from pending_images") == [("complete",)]


def test_an_image_for_which_a_busy_machine_has_no_time_is_tried_again(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    gateway.upload(1, profile_image=picture(1600, 1200))
    with monkeypatch.context() as busy:
        busy.setattr(gateway.services.workshop, "wall_seconds", 0.01)
        gateway.run_due()
    waiting = gateway.rows("select state, error_code from work_items where queue = 'media'")
    assert waiting == [("waiting", "image-too-slow")]
    make_due(gateway, "media")
    gateway.run_due("run-2")
    assert gateway.rows("select status from media_files") == [("completed",)]
