"""How fast things are judged, and how long a clear image waits for it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from statistics import median

import pytest

from imgpipe_orchestration.errors import RateLimited
from imgpipe_orchestration.moderation.judging import THREADS
from imgpipe_orchestration.partners.openai_moderation import Moderator
from imgpipe_orchestration_tests.conftest import StandInAccess
from imgpipe_orchestration_tests.media.conftest import Gateway, picture


@pytest.mark.slow
def test_five_hundred_questions_keep_the_providers_rate_without_a_storm_of_refusals(standins: StandInAccess) -> None:
    standins.admin("POST", "limits", {"openai": {"requests": 100, "seconds": 1}})
    client = Moderator("rate-key", base_url=standins.openai_url)

    def ask(number: int) -> dict[str, float]:
        while True:  # as the queue does
            try:
                return client.judge(f"text {number}", model="omni-moderation-latest").scores
            except RateLimited as refused:
                time.sleep(refused.retry_after or 0.1)

    with ThreadPoolExecutor(THREADS) as pool:
        scores = list(pool.map(ask, range(500)))
    client.close()
    assert len(scores) == 500
    refused = [call for call in standins.calls("openai", "moderations") if call["status"] == 429]
    assert len(refused) < 100, "without the gate there would be hundreds"


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
