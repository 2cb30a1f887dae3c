"""The review list, by keyboard alone."""

import re
import time
from collections.abc import Callable

import pytest
import requests
from playwright.sync_api import Browser, expect

from imgpipe_orchestration.gateway import session
from imgpipe_orchestration.identity.model import Role
from imgpipe_orchestration.operations import review
from imgpipe_orchestration.operations.kinds import subject_of
from imgpipe_orchestration_tests.devstack.running import wait_for
from imgpipe_orchestration_tests.gateway.browser import Visitor, visitor
from imgpipe_orchestration_tests.gateway.conftest import Visit
from imgpipe_orchestration_tests.gateway.test_limits import KEYS
from imgpipe_orchestration_tests.media.conftest import Gateway, picture
from imgpipe_orchestration_tests.media.worker import run, today


def doubtful(gateway: Gateway, count: int) -> None:
    """Pictures that wait for a person."""
    for seed in range(count):
        answer = gateway.upload(456, product_image=picture(seed=seed))
        assert answer.status_code == 200
    run(gateway.services, "run-1", today(), "retrieve_file")
    gateway.rows("""
        update verdicts set state = 'flagged', review_since = now(), reason = 'sexual 0.80', scores = '{"sexual": 0.8}'
        returning 1
    """)


def test_a_person_decides_by_keys_alone(guest: Visitor, gateway: Gateway) -> None:
    doubtful(gateway, 12)
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
    page.keyboard.press("w")
    page.keyboard.type("a statue, rare")
    page.keyboard.press("Enter")
    for _ in range(5):
        page.keyboard.press("a")
        page.keyboard.press("r")
    expect(page.locator(".review > li")).to_have_count(2)
    assert gateway.rows("select reason from verdicts where reason = 'a statue, rare' and state = 'approved'")
    states = gateway.rows("select state, count(*) as n from verdicts group by state order by state")
    assert {row.state: row.n for row in states} == {"approved": 5, "flagged": 2, "rejected": 5}
    page.get_by_role("button", name="Reject").first.click()
    expect(page.get_by_role("status").first).to_contain_text("rejected")


def test_what_another_one_decided_meanwhile_is_not_decided_again(guest: Visitor, gateway: Gateway) -> None:
    doubtful(gateway, 1)
    page = guest.go("/review")
    (row,) = gateway.rows("select item from verdicts")
    review.decide(gateway.services, subject_of("media"), row.item, approve=False, why="", who="another")
    guest.allowed.append("409")
    with page.expect_response("**/review/decide") as answered:
        page.keyboard.press("a")
    assert answered.value.status == 409
    expect(page.locator(".review > li")).to_contain_text("Nothing to review")
    assert [row.state for row in gateway.rows("select state from verdicts")] == ["rejected"]


@pytest.mark.parametrize("production", [True, False])
def test_who_comes_back_has_the_same_pictures_and_who_signs_in_as_well_has_others(
    make_gateway: Callable[..., Gateway], production: bool
) -> None:
    gateway = make_gateway(**({"imgpipe_env": "production", **KEYS} if production else {}))
    doubtful(gateway, 1)

    def given(who: requests.Session) -> list[str]:
        return re.findall('data-item="([0-9]+)"', who.get(f"{gateway.url}/review", timeout=30).text)

    one, other = requests.Session(), requests.Session()
    for somebody in (one, other) if production else ():
        somebody.cookies[session.COOKIE] = session.cookie_of(gateway.settings, "ada", Role.OPERATOR)
    assert given(one) == given(one) != []
    assert given(other) == []


def test_a_narrow_screen_shows_the_whole_question_about_what_was_never_judged(
    make_gateway: Callable[..., Gateway], visit: Visit
) -> None:
    off, gateway = (make_gateway(moderation=mode) for mode in ("off", "flag"))
    off.finish(456, product_image=picture())
    with visit(gateway.url, viewport={"width": 390, "height": 740}) as guest:
        page = guest.go("/review")
        expect(page.get_by_role("button", name="Judge them, and show them meanwhile")).to_be_visible()
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_two_people_decide_on_sixty_by_keys_and_none_is_decided_twice(
    guest: Visitor, browser: Browser, gateway: Gateway, record_property: Callable[[str, object], None]
) -> None:
    """At the pace of a hand: a look at the picture with S, then A or R, thirty times each."""
    doubtful(gateway, 60)
    with visitor(browser, gateway.url) as other:
        pages, seen, began = [guest.go("/review"), other.go("/review")], set(), time.monotonic()
        for number in range(60):
            page = pages[number % 2]
            waiting = page.locator(".review > .now:not([data-sent])")
            expect(waiting.locator("> figure img")).to_have_js_property("complete", True)  # keys wait for it
            item = waiting.get_attribute("data-item")
            assert item not in seen, "it was given to both"
            seen.add(item)
            page.keyboard.press("s", delay=150)
            page.keyboard.press("r" if number % 4 < 2 else "a", delay=80)
        undecided = "select 1 from verdicts where not by_person"
        wait_for(lambda: not gateway.rows(undecided), "the last decisions to be written", 30)
        for page in pages:
            expect(page.locator("[data-item]")).to_have_count(0)  # it has come anew by itself after its last picture
            page.reload()  # which says that somebody else is looking at the rest, for the one that was ready first
            expect(page.locator(".review > li")).to_contain_text("Nothing to review")
        record_property("decisions a minute of each", round(30 / (time.monotonic() - began) * 60))
    states = gateway.rows("select state, by_person, count(*) as n from verdicts group by 1, 2 order by 1")
    assert [(row.state, row.by_person, row.n) for row in states] == [("approved", True, 30), ("rejected", True, 30)]
    audited = gateway.rows(
        "select count(*) as n, count(distinct subject) as of from audit where subject like 'media/%'"
    )
    assert tuple(audited[0]) == (60, 60)


def test_a_reason_is_kept_for_the_picture_it_was_written_about(guest: Visitor, gateway: Gateway) -> None:
    doubtful(gateway, 3)
    page = guest.go("/review")
    page.evaluate("for (const one of document.querySelectorAll('[name=form_token]')) one.value = 'old'")
    page.get_by_label("Reason").nth(1).fill("a statue")
    page.get_by_role("button", name="Approve").nth(1).click()
    expect(page.get_by_role("alert")).to_contain_text("The page was out of date")
    reasons = page.get_by_label("Reason")
    assert [reasons.nth(at).input_value() for at in range(3)] == ["", "a statue", ""]
