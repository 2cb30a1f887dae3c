"""The review list, by keyboard alone."""

from __future__ import annotations

import time

from playwright.sync_api import expect

from imgpipe_orchestration_tests.conftest import StandInAccess
from imgpipe_orchestration_tests.gateway.browser import Visitor
from imgpipe_orchestration_tests.media.conftest import Gateway
from imgpipe_orchestration_tests.moderation.conftest import saying


def test_a_person_decides_by_keys_alone_faster_than_one_a_second(
    guest: Visitor, gateway: Gateway, standins: StandInAccess
) -> None:
    services = gateway.services
    for seed in range(12):
        answer = gateway.upload(456, product_image=saying("sexual=0.8", seed=seed))
        assert answer.status_code == 200
    gateway.run_due()
    assert services.settings.moderation == "flag"
    gateway.rows("""
        update verdicts set state = 'flagged', review_since = now(), reason = 'sexual 0.80', scores = '{"sexual": 0.8}'
        returning 1
    """)
    page = guest.go("/review")
    expect(page.locator(".review > li")).to_have_count(10)
    assert guest.axe() == []
    blur = "document.querySelector('.review .now img') && getComputedStyle(document.querySelector('.now img')).filter"
    assert "blur" in page.evaluate(blur)
    page.keyboard.down("s")
    assert page.evaluate(blur) == "none"
    page.keyboard.up("s")
    page.keyboard.press("j")
    page.keyboard.press("k")
    began = time.monotonic()
    for _ in range(5):
        page.keyboard.press("a")
        page.keyboard.press("r")
    expect(page.locator(".review > li")).to_have_count(2)
    assert time.monotonic() - began < 12, "50 a minute"
    states = gateway.rows("select state, count(*) as n from verdicts group by state order by state")
    assert {row.state: row.n for row in states} == {"approved": 5, "flagged": 2, "rejected": 5}
    page.get_by_role("button", name="Reject").first.click()
    expect(page.get_by_role("status").first).to_contain_text("rejected")
