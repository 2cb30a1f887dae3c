"""Budgets hold back exactly the paid work of their scope, are told of, and can be seen where people look."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from decimal import Decimal

import dagster as dg
import pytest
from sqlalchemy import Engine, text

from imgpipe_orchestration.billing import budgets
from imgpipe_orchestration.billing.budgets import Period
from imgpipe_orchestration.billing.calls import PaidCall, Purchase
from imgpipe_orchestration.billing.ledger import Ledger
from imgpipe_orchestration.dagster_side.alerts import alert_on_budgets
from imgpipe_orchestration.errors import SpendingPaused
from imgpipe_orchestration.partners.usage import Usage
from imgpipe_orchestration.resources import BackendsResource
from imgpipe_orchestration.storage.rows import transaction
from imgpipe_orchestration_tests.billing.ledger.shop import ANNA, BERT, VISION_COST, Shop, a_call
from imgpipe_orchestration_tests.cli.conftest import Run, run
from imgpipe_orchestration_tests.dagster_side.test_alerts import Webhook, webhook
from imgpipe_orchestration_tests.devstack.running import wait_for
from imgpipe_orchestration_tests.media.conftest import Gateway, make_gateway, picture, seeing_gateway

__all__ = ["make_gateway", "run", "seeing_gateway", "webhook"]


def limit(engine: Engine, scope: str, usd: Decimal | float | str, period: Period = "day") -> None:
    with transaction(engine) as connection:
        budgets.put(connection, scope, period, Decimal(str(usd)), budgets.ALERT_AT)


def test_eight_that_call_at_once_do_not_overshoot_a_dollar_by_more_than_a_call_each(engine: Engine) -> None:
    """Each call costs more than those before, which are all that the estimate knows."""
    limit(engine, "pipeline:media", 1)
    ledger, lock, sold = Ledger(engine), threading.Lock(), 0

    def purchase() -> Purchase:
        nonlocal sold
        with lock:
            sold += 1
            return Purchase(Usage(model="gpt-6-luna", output_tokens=80_000 + 4_000 * sold), value="seen")

    def want(name: int) -> None:
        for number in range(50):
            try:
                ledger.buy(a_call(b"%d/%d" % (name, number)), purchase, buyer=ANNA)
            except SpendingPaused:
                return

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(want, range(8)))
    with engine.connect() as connection:
        (budget,) = budgets.standings(connection, 0)
    dearest = (80_000 + 4_000 * sold) * Decimal("0.5") / 1_000_000
    assert 1 - 2 * dearest < budget.spent_usd <= 1 + 8 * dearest
    assert (budget.used_up, budget.reserved_usd) == (True, 0)


@pytest.mark.parametrize("scope", ["tenant:user 1", "pipeline:media", "provider:openai"])
def test_only_the_calls_of_its_scope_wait_for_a_budget(engine: Engine, scope: str) -> None:
    limit(engine, scope, VISION_COST)
    ledger, shop = Ledger(engine), Shop()
    ledger.buy(a_call(b"first"), shop, buyer=ANNA)
    with pytest.raises(SpendingPaused, match=f"daily budget of {scope.replace(':', ' ')} .* is used up") as caught:
        ledger.buy(a_call(b"second"), shop, buyer=ANNA)
    assert not caught.value.spends_attempt
    other = PaidCall.of("google", "annotate", "vision-v1", inputs=[b"x"])
    assert ledger.buy(other, shop, buyer=replace(BERT, pipeline="avatars")).bought
    limit(engine, scope, VISION_COST * 2)
    assert ledger.buy(a_call(b"second"), shop, buyer=ANNA).bought, "it was raised"


@pytest.mark.parametrize(
    ("period", "word", "later"), [("day", "daily", "tomorrow"), ("month", "monthly", "next month")]
)
def test_a_budget_remembers_the_first_day_of_its_period_and_none_before(
    engine: Engine, period: Period, word: str, later: str
) -> None:
    limit(engine, "total", VISION_COST, period)
    ledger = Ledger(engine)
    ledger.buy(a_call(b"first"), Shop(), buyer=ANNA)
    with engine.begin() as connection:
        first = text("update spending_days set day = date_trunc(:period, now() at time zone 'UTC')")
        connection.execute(first, {"period": period})
    with pytest.raises(SpendingPaused, match=f"{word} budget .* goes on {later}"):
        ledger.buy(a_call(b"second"), Shop(), buyer=ANNA)
    with engine.begin() as connection:
        connection.execute(text("update spending_days set day = day - 1"))
    assert ledger.buy(a_call(b"second"), Shop(), buyer=ANNA).bought


def test_paid_work_over_its_budget_waits_where_everybody_can_see_it_and_goes_on_when_it_is_raised(
    seeing_gateway: Gateway, run: Run
) -> None:
    gateway, url = seeing_gateway, f"{seeing_gateway.url}/api/budgets"
    body = {"scope": "provider:openai", "period": "day", "limit_usd": 0}
    assert gateway.session.put(url, json={**body, "scope": "of all"}, timeout=30).status_code == 422
    assert gateway.session.put(url, json={**body, "limit_usd": 100 / 3}, timeout=30).json()["limit_usd"] == 33.333333
    put = gateway.session.put(url, json=body, timeout=30).json()
    assert (put["alert_at"], put["used_up"]) == ([0.5, 0.8, 1.0], True)
    refused = gateway.session.put(url, json={**body, "scope": "provider:mein"}, timeout=30)
    assert refused.status_code == 422 and "there are openai, google" in refused.text
    gateway.finish(profile_image=picture())
    query = "select status, providers from media_files f join media_ai_analysis a on a.media_id = f.id"
    ((status, providers),) = gateway.rows(query)
    assert status == "completed"
    assert providers["google_vision"] == "ok"
    assert "daily budget of provider openai of 0 USD is used up" in providers["openai_vision"]
    told = run("status", DATABASE_URL=gateway.settings.database_url).stdout
    assert "used up the daily budget of provider openai: its paid work waits until" in told
    wait_for(lambda: "The daily budget of provider openai" in gateway.get("/").text, "the overview to tell of it", 60)
    mine = {"scope": "provider:openai", "period": "day"}
    assert [gateway.session.delete(url, params=mine, timeout=30).status_code for _ in range(2)] == [204, 404]
    assert gateway.get("/api/budgets").json() == {"budgets": []}
    limit(gateway.services.engine, "provider:gone", 1)
    assert [one["scope"] for one in gateway.get("/api/budgets").json()["budgets"]] == ["provider:gone"]
    assert gateway.session.delete(url, params={**mine, "scope": "provider:gone"}, timeout=30).status_code == 204


def test_the_daily_budget_of_the_settings_is_the_first_until_another_takes_its_place(
    make_gateway: Callable[..., Gateway],
) -> None:
    gateway = make_gateway(daily_budget_usd=2)
    url, mine = f"{gateway.url}/api/budgets", {"scope": "total", "period": "day"}
    (first,) = gateway.get("/api/budgets").json()["budgets"]
    assert (first["scope"], first["limit_usd"], first["by_setting"]) == ("total", 2, True)
    assert gateway.session.delete(url, params=mine, timeout=30).status_code == 409
    gateway.session.put(url, json={**mine, "limit_usd": 3}, timeout=30)
    (first,) = gateway.get("/api/budgets").json()["budgets"]
    assert (first["limit_usd"], first["by_setting"]) == (3, False)


def test_the_webhook_is_told_of_each_share_of_a_budget_once(
    engine: Engine, webhook: Webhook, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit(engine, "tenant:user 1", VISION_COST * 4)
    monkeypatch.setenv("DATABASE_URL", engine.url.render_as_string(hide_password=False))
    monkeypatch.setenv("ALERT_WEBHOOK_URL", webhook.url)
    backends, cursor = BackendsResource(), None

    def tick() -> list[str]:
        nonlocal cursor
        before = len(webhook.messages)
        with dg.build_sensor_context(cursor=cursor, resources={"sensor_backends": backends}) as context:
            cursor = alert_on_budgets.evaluate_tick(context).cursor
        return [message["text"].partition(" of the *")[0].partition(": ")[2] for message in webhook.messages[before:]]

    told = []
    for number in range(4):
        Ledger(engine).buy(a_call(b"%d" % number), Shop(), buyer=ANNA)
        told.append(tick())
    told.append(tick())
    assert told == [[], ["50%"], [], ["80%", "100%"], []]
    assert "daily budget of tenant user 1* is spent: 0.00 of 0.00 USD; paid work waits" in webhook.messages[-1]["text"]
    backends.services.close()
