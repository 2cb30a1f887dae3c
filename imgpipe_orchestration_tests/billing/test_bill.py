"""What was spent can be read by many things, over HTTP and on a page; each asset says it, an estimate beforehand."""

import csv
from datetime import date
from decimal import Decimal
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from imgpipe_orchestration.billing import spending
from imgpipe_orchestration_tests.gateway.browser import visitor
from imgpipe_orchestration_tests.gateway.conftest import browser
from imgpipe_orchestration_tests.media.conftest import Gateway, make_gateway, picture, seeing_gateway
from imgpipe_orchestration_tests.media.worker import today

__all__ = ["browser", "make_gateway", "seeing_gateway"]


def test_the_forecast_goes_on_at_the_pace_of_the_last_week() -> None:
    days = {date(2026, 11, day): Decimal(1) for day in range(1, 21)}
    assert spending.forecast(days, date(2026, 11, 20)) == 30
    assert spending.forecast({}, date(2026, 11, 20)) == 0
    assert spending.forecast({date(2026, 11, 1): Decimal(2)}, date(2026, 11, 1)) == 60
    assert spending.forecast({date(2026, 10, 31): Decimal(7)}, date(2026, 11, 1)) == 30, "October's seven are no part"


def test_the_bill_adds_up_whichever_way_it_is_read(seeing_gateway: Gateway, browser: Browser, tmp_path: Path) -> None:
    gateway = seeing_gateway
    gateway.upload(7, profile_image=picture())
    gateway.finish(8, profile_image=picture())
    of_journal = sum(
        row.cost_usd for row in gateway.rows("select cost_usd from paid_call_uses where outcome = 'bought'")
    )
    for by, names in {
        "day": {today()},
        "pipeline": {"media"},
        "tenant": {"7", "8"},
        "task": {"describe", "labels", "embed", "moderate"},
        "model": {"gpt-6-luna", "vision-v1", "text-embedding-3-small"},
    }.items():
        bill = gateway.get(f"/api/spending?by={by}").json()
        assert {line["name"] for line in bill["lines"]} >= names, by
        assert bill["cost_usd"] == pytest.approx(float(of_journal)), by
        assert sum(line["saved_usd"] for line in bill["lines"]) > 0, "the same picture was asked about once"
        written = list(csv.DictReader(gateway.get(f"/api/spending?by={by}&format=csv").text.splitlines()))
        assert [line[by] for line in written] == [line["name"] for line in bill["lines"]]
    asked = gateway.get("/api/spending", Accept="text/csv"), gateway.get("/api/spending?format=json", Accept="text/csv")
    asked = *asked, gateway.get("/api/spending", Accept="application/json, text/csv;q=0.5")
    kinds = [answer.headers["Content-Type"].partition(";")[0] for answer in asked]
    assert kinds == ["text/csv", "application/json", "application/json"]
    assert gateway.get("/api/spending?by=colour").status_code == 422
    refused = gateway.get("/api/spending?from=2026-11-02&to=2026-11-01")
    assert refused.status_code == 422
    assert "from is 2026-11-02, which is after 2026-11-01, the last day" in refused.text
    assert gateway.get("/api/spending?from=&to=").json()["to"] == today()
    gateway.rows("""
        insert into spending_tenants (tenant, day, bought, reused, cost_usd, saved_usd)
        select 'tenant ' || n, cast(now() at time zone 'utc' as date), 1, 0, n, 0 from generate_series(1, 300) n
        returning 1
    """)
    shown = gateway.get("/spending?by=tenant").text
    assert ">tenant 300<" in shown and ">tenant 1<" not in shown and " more; the CSV has all." in shown
    for name, width in {"wide": 1280, "narrow": 390}.items():
        with visitor(browser, gateway.url, viewport={"width": width, "height": 900}) as guest:
            guest.page.goto(f"{gateway.url}/spending")
            assert guest.page.evaluate("document.documentElement.scrollWidth") <= width
            if name == "wide":
                guest.page.fill("#scope", "pipeline:media")
                guest.page.select_option("[name=period]", "month")
                for limit, told in {"little": "must be a number", "0.000001": "The budget is set"}.items():
                    guest.page.fill("#limit", limit)
                    guest.page.click("text=Set the budget")
                    guest.page.wait_for_selector(f"text={told}")
                guest.page.wait_for_selector("text=used up")
                assert gateway.rows("select period from budgets") == [("month",)]
            guest.page.screenshot(path=tmp_path / f"{name}.png", full_page=True)
