"""Each asset says what it paid, and an estimate what the next time would cost.

Not beside a browser, whose event loop Dagster finds taken.
"""

import json
from datetime import date
from decimal import Decimal

import dagster as dg
import pytest

from imgpipe_orchestration.billing.ledger import HALF
from imgpipe_orchestration.media.assets import media_images
from imgpipe_orchestration.media.model import Step
from imgpipe_orchestration.media.remake import estimate, make_analyses, order
from imgpipe_orchestration.resources import BackendsResource
from imgpipe_orchestration_tests.cli.conftest import Run, run
from imgpipe_orchestration_tests.devstack.running import wait_for
from imgpipe_orchestration_tests.media.conftest import Gateway, make_gateway, picture, seeing_gateway
from imgpipe_orchestration_tests.media.worker import today

__all__ = ["make_gateway", "run", "seeing_gateway"]


@pytest.mark.parametrize("urgent", [True, False])
def test_a_backfill_costs_what_was_estimated_and_saves_what_it_did_not_buy(
    seeing_gateway: Gateway, urgent: bool
) -> None:
    def spent(column: str = "cost_usd", where: str = "true") -> Decimal:
        bill = f"select coalesce(sum({column}), 0) from paid_call_uses where operation <> 'moderation' and {where}"
        return Decimal(gateway.rows(bill)[0][0])

    def made() -> bool:
        with gateway.services.engine.begin() as connection:
            connection.exec_driver_sql("update work_items set due_at = now() where state = 'waiting'")
        make_analyses(gateway.services, "a run", today())
        return estimate(gateway.services, day, day)["images"] == 0

    gateway, day = seeing_gateway, date.fromisoformat(today())
    for user, seed in ((7, 1), (8, 1), (9, 2)):  # two of them are the same picture
        gateway.upload(user, profile_image=picture(seed=seed))
    gateway.run_due()
    labels = spent(where="operation = 'annotate'")
    assert gateway.get("/api/media/search?text=a+short+question", **gateway.as_worker).status_code == 200
    with gateway.services.engine.begin() as connection:
        connection.exec_driver_sql("update media_ai_analysis set version = 'older'")
        connection.exec_driver_sql("delete from paid_calls where operation <> 'annotate'")
        connection.exec_driver_sql("update paid_call_uses set at = at - interval '9 days'")
    expected, before, saved = estimate(gateway.services, day, day), spent(), spent("saved_usd")
    assert (expected["images"], expected["calls"]) == (3, {"vision": 3, "embedding": 3})
    assert order(gateway.services, today(), Step.AI_VISUAL_ANALYSIS, urgent=urgent) == 3
    wait_for(made, "the backfill to end")
    at_most = expected["cost_usd"] * (1 if urgent else float(HALF))
    assert float(spent() - before) == pytest.approx(at_most * 2 / 3, abs=2e-6), "the copy costs nothing"
    # Google's three answers were bought before, and the copy's others for the first one.
    copy = (spent() - before) / 2
    assert spent("saved_usd") - saved == pytest.approx(labels * 3 / 2 + copy, rel=Decimal("0.02"))


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
    backends = BackendsResource()
    backends.services.settings = gateway.settings  # the same servers
    with dg.DagsterInstance.ephemeral() as instance:
        ended = dg.materialize(
            [media_images], instance=instance, partition_key=today(), resources={"backends": backends}
        )
    backends.services.close()
    (made,) = ended.asset_materializations_for_node("media_images")[1:2]
    told = {name: value.value for name, value in made.metadata.items()}
    (spent,) = gateway.rows("""
        select sum(cost_usd) as usd, count(*) as calls from paid_call_uses where outcome = 'bought'
    """)
    assert (told["cost_usd"], told["calls"]) == (pytest.approx(float(spent.usd), abs=2e-6), spent.calls)
    assert told["saved_by_ledger_usd"] == 0
    gateway.rows('update media_ai_analysis set providers = providers || \'{"google_vision": "absent"}\' returning 1')
    gateway.rows("update media_ai_analysis set answered_by = answered_by - 'labels' returning 1")
    day = date.fromisoformat(today())
    assert estimate(gateway.services, day, day)["calls"] == {"annotate": 1, "embedding": 1}
    gateway.rows("update media_ai_analysis set version = 'older' returning 1")
    assert estimate(gateway.services, day, day)["calls"] == {"vision": 1, "annotate": 1, "embedding": 1}
    gateway.rows('update media_ai_analysis set answered_by = answered_by || \'{"labels": "google"}\' returning 1')
    days = ("--from", today(), "--to", today())
    found = json.loads(run("estimate", "media", *days, "--json").stdout)
    assert (found["images"], found["calls"]) == (1, {"vision": 1, "embedding": 1})
    assert 0 < found["cost_usd"] < float(spent.usd)
    assert "1 images have an outdated analysis" in run("estimate", "media", *days).stdout
