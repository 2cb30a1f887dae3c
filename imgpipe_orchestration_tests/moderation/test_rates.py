"""How fast things are judged, and how long a clear image waits for it."""

import threading
import time
from collections.abc import Callable
from statistics import median

import pytest

from imgpipe_orchestration.moderation import verdicts
from imgpipe_orchestration.moderation.model import digest_of
from imgpipe_orchestration.operations import existing
from imgpipe_orchestration.operations.kinds import subject_of
from imgpipe_orchestration.storage.rows import transaction
from imgpipe_orchestration_tests.conftest import StandInAccess
from imgpipe_orchestration_tests.media.conftest import Gateway, picture


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_five_hundred_things_are_judged_through_the_queue_at_the_providers_rate(
    make_gateway: Callable[..., Gateway], standins: StandInAccess
) -> None:
    standins.admin("POST", "limits", {"openai": {"requests": 100, "seconds": 1}})
    gateway = make_gateway(**standins.seeing, moderation="flag")
    services, briefs = gateway.services, subject_of("briefs")
    tasks = gateway.rows(
        """
        insert into generation_tasks (persona_count, brief, language, style, seed)
        select 1, 'People of town ' || n, 'English', '', n from generate_series(1, 500) n returning id
        """
    )
    for task in tasks:
        with transaction(services.engine) as connection:
            verdicts.ask(services, connection, briefs, task.id, user_id=None, sha256=digest_of(f"brief {task.id}"))
    services.claims.hasten(existing.JUDGE)
    began = time.monotonic()
    while gateway.rows("select from verdicts where state = 'waiting' limit 1"):
        assert time.monotonic() - began < 200
        existing.run(services, "run-1")
    calls = standins.calls("openai", "moderations")
    refused = sum(call["status"] == 429 for call in calls)
    print(f"500 judged in {time.monotonic() - began:.1f} s, {refused} refused")  # noqa: T201
    assert len(calls) - refused == 500
    assert refused < 100, "without the gate there would be hundreds"


@pytest.mark.slow
def test_a_clear_image_is_public_at_most_three_seconds_later_in_hold_than_in_off(
    make_gateway: Callable[..., Gateway], standins: StandInAccess
) -> None:
    standins.admin("POST", "delays", {"openai.moderations": 0.3})
    medians = {}
    for mode in ("off", "hold"):
        gateway, took = make_gateway(**standins.seeing, moderation=mode), []
        for seed in range(20):
            before = time.monotonic()
            image = gateway.upload(456, product_image=picture(seed=100 + seed)).json()["images"][0]["id"]
            run = threading.Thread(target=gateway.run_due, args=[f"{mode}-{seed}"])
            run.start()
            while not _public(gateway, image):
                assert time.monotonic() - before < 60
                time.sleep(0.02)
            took.append(time.monotonic() - before)
            run.join()
        medians[mode] = median(took)
    assert medians["hold"] - medians["off"] <= 3, medians
    print(f"public after {medians['off']:.2f} s in off, {medians['hold']:.2f} s in hold")  # noqa: T201


def _public(gateway: Gateway, pending_id: int) -> bool:
    rows = gateway.rows("select id from media_files where main_api_id = :id", id=pending_id)
    return bool(rows) and gateway.get(f"/serve/{rows[0].id}").status_code == 200
