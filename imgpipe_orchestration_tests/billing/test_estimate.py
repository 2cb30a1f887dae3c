"""Each asset says what it paid, and an estimate what the next time would cost.

Not beside a browser, whose event loop Dagster finds taken.
"""

from __future__ import annotations

import json

import dagster as dg
import pytest

from imgpipe_orchestration.media.assets import media_images
from imgpipe_orchestration.resources import build_backends
from imgpipe_orchestration_tests.cli.conftest import Run, run
from imgpipe_orchestration_tests.media.conftest import Gateway, make_gateway, picture, seeing_gateway
from imgpipe_orchestration_tests.media.worker import today

__all__ = ["make_gateway", "run", "seeing_gateway"]


def test_a_materialization_says_what_it_paid_and_an_estimate_what_the_next_would(
    seeing_gateway: Gateway, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    gateway = seeing_gateway
    for name in (
        "DATABASE_URL",
        "OPENAI_API_KEY",
        "OPENAI_BASE_URL",
        "GOOGLE_VISION_API_KEY",
        "GOOGLE_VISION_ENDPOINT",
    ):
        monkeypatch.setenv(name, getattr(gateway.settings, name.lower()))
    gateway.upload(7, profile_image=picture())
    backends = build_backends()
    backends.services.settings = gateway.settings  # the same servers
    with dg.DagsterInstance.ephemeral() as instance:
        ended = dg.materialize(
            [media_images], instance=instance, partition_key=today(), resources={"backends": backends}
        )
    backends.services.close()
    (made,) = ended.asset_materializations_for_node("media_images")[1:2]
    told = {name: value.value for name, value in made.metadata.items()}
    (spent,) = gateway.rows(
        "select sum(cost_usd) as usd, count(*) as calls from paid_call_uses"
        " where outcome = 'bought' and operation <> 'moderation'"
    )
    assert (told["cost usd"], told["calls"]) == (pytest.approx(float(spent.usd), abs=2e-6), spent.calls)
    assert told["saved by ledger usd"] == 0
    gateway.rows("update media_ai_analysis set version = 'older' returning 1")
    days = ("--from", today(), "--to", today())
    found = json.loads(run("estimate", "media", *days, "--json").stdout)
    assert (found["images"], found["calls"]) == (1, {"vision": 1, "embedding": 1})
    assert 0 < found["cost_usd"] < float(spent.usd)
    assert "1 images have an outdated analysis" in run("estimate", "media", *days).stdout
