"""The door in production: nothing without the key, few guesses, sessions that end."""

import re
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jwt
import pytest
import requests
from playwright.sync_api import expect
from sqlalchemy import text

from imgpipe_orchestration.gateway import session
from imgpipe_orchestration.gateway.pages import login, overview
from imgpipe_orchestration.identity.model import Role
from imgpipe_orchestration.storage.rows import transaction
from imgpipe_orchestration_tests.devstack.running import wait_for
from imgpipe_orchestration_tests.gateway.browser import Visitor
from imgpipe_orchestration_tests.gateway.pages.rows import failed_media
from imgpipe_orchestration_tests.gateway.test_limits import KEYS
from imgpipe_orchestration_tests.identity.conftest import signed_in
from imgpipe_orchestration_tests.media.conftest import Gateway, picture

ADMIN = KEYS["admin_api_key"]
IN_PRODUCTION = {"imgpipe_env": "production", **KEYS}


@pytest.fixture
def gateway(make_gateway: Callable[..., Gateway]) -> Gateway:
    return make_gateway(**IN_PRODUCTION)


def test_an_overview_whose_session_has_ended_asks_to_sign_in(
    guest: Visitor, gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(overview, "LONGEST", 2 * overview.INTERVAL)
    guest.allowed = ["401"]
    page = guest.go("/")
    page.get_by_label("Key").fill(ADMIN)
    page.keyboard.press("Enter")
    expect(page.get_by_text("As of")).to_be_visible()
    with transaction(gateway.services.engine) as connection:
        sid = jwt.decode(page.context.cookies()[0]["value"], options={"verify_signature": False})["sid"]
        connection.execute(text("insert into ended_sessions values (:sid, now() + interval '1 day')"), {"sid": sid})
    expect(page.get_by_role("heading", name="Sign in")).to_be_visible()


def test_the_operator_signs_in_works_and_signs_out(guest: Visitor, gateway: Gateway) -> None:
    failed_media(gateway.services, 1)
    guest.allowed = ["401"]
    page = guest.go("/failures")
    expect(page).to_have_url(f"{gateway.url}/login?next=/failures")
    for scheme in ("dark", "light"):
        page.emulate_media(color_scheme=scheme)
        assert guest.axe() == []
    page.get_by_label("Key").fill("wrong")
    page.keyboard.press("Enter")
    expect(page.get_by_role("alert")).to_contain_text("not the ADMIN_API_KEY")
    page.get_by_label("Key").fill(ADMIN)
    page.keyboard.press("Enter")
    page.get_by_role("button", name="Requeue media 1").click()
    expect(page.get_by_role("status")).to_contain_text("waits again")
    cookie = page.context.cookies()[0]
    assert (cookie["httpOnly"], cookie["sameSite"]) == (True, "Lax")
    assert ADMIN not in page.content()
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_label("Key")).to_be_visible()
    assert page.context.cookies() == []


def test_who_signed_in_gets_the_csv_of_the_spending_page(guest: Visitor, gateway: Gateway) -> None:
    page = guest.go("/login?next=/spending")
    page.get_by_label("Key").fill(ADMIN)
    page.keyboard.press("Enter")
    with page.expect_download() as downloaded:
        page.get_by_role("link", name="CSV").click()
    assert re.fullmatch(r"spending-.+-task\.csv", downloaded.value.suggested_filename)
    assert downloaded.value.path().read_text().startswith("task,bought,reused,")
    stranger = requests.get(f"{gateway.url}/spending/export?from=2026-11-01&to=2026-11-30&by=day", timeout=10)
    assert stranger.status_code == 401


def test_files_that_wait_are_sent_once_the_operator_has_signed_in_again(
    guest: Visitor, gateway: Gateway, tmp_path: Path
) -> None:
    files = [tmp_path / f"{number}.png" for number in range(3)]
    for file in files:
        file.write_bytes(picture(40, 30, format="PNG"))
    guest.allowed = ["401"]
    page = guest.go("/login?next=/upload")
    page.get_by_label("Key").fill(ADMIN)
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Upload")).to_be_visible()
    page.get_by_label("User id").fill("1")
    page.context.clear_cookies()
    page.locator("#files").set_input_files(files)
    expect(page.locator("#tally")).to_contain_text("3 on the way. Your session has ended. Sign in again")
    other = page.context.new_page()
    other.goto(f"{gateway.url}/login")
    other.get_by_label("Key").fill(ADMIN)
    other.keyboard.press("Enter")
    expect(page.locator(".file", has_text="Accepted")).to_have_count(3)
    expect(page.locator("#tally")).to_have_text("3 files: 3 on the way.")


def test_guessing_is_slowed_down_and_forged_sessions_open_nothing(gateway: Gateway) -> None:
    url = gateway.url
    for _ in range(login.ATTEMPTS):
        assert requests.post(f"{url}/login", data={"key": "guess"}, timeout=10).status_code == 401
    refused = requests.post(f"{url}/login", data={"key": "guess"}, timeout=10)
    assert refused.status_code == 429
    assert int(refused.headers["Retry-After"]) > 30
    right = requests.post(f"{url}/login", data={"key": ADMIN}, allow_redirects=False, timeout=10)
    assert right.status_code == 303, "guesses from the same address hold up nobody who has the key"
    for forged in (
        "nonsense",
        jwt.encode({"sid": "x", "exp": time.time() + 60}, "another key which is long enough to be one", "HS256"),
        jwt.encode({"sid": "x", "exp": time.time() + 60}, None, "none"),
    ):
        answer = requests.get(f"{url}/events", cookies={session.COOKIE: forged}, timeout=10)
        assert answer.status_code == 401


def test_a_form_whose_session_has_ended_leads_back_to_its_page_which_says_that_nothing_was_done(
    guest: Visitor, gateway: Gateway
) -> None:
    failed_media(gateway.services, 1)
    guest.allowed = ["401"]  # of the event stream, whose session has ended too
    page = guest.go("/failures?queue=media")
    for ended in (True, False):
        page.get_by_label("Key").fill(ADMIN)
        page.keyboard.press("Enter")
        requeue = page.get_by_role("button", name="Requeue media 1")
        expect(requeue).to_be_visible()
        if ended:
            page.context.clear_cookies()
            requeue.click()
    expect(page.get_by_role("alert")).to_contain_text("nothing was done")
    question = {"Accept": "text/html", "Referer": f"{gateway.url}/selected"}  # an answer to a form has no address
    answer = requests.post(f"{gateway.url}/selected", headers=question, timeout=10, allow_redirects=False)
    assert answer.headers["Location"].startswith("/login?next=/%3Ftrouble%3D")
    requeue.click()
    expect(page.get_by_role("status")).to_contain_text("1 item waits again")
    expect(page).to_have_url(re.compile("queue=media"))


def test_a_copy_of_the_cookie_opens_nothing_at_any_gateway_once_its_owner_signed_out(
    gateway: Gateway, make_gateway: Callable[..., Gateway]
) -> None:
    url, second = gateway.url, make_gateway(**IN_PRODUCTION).url
    (browser, token), (other, _) = signed_in(gateway), signed_in(gateway)
    copy = dict(browser.cookies)
    for at in (url, second):
        assert requests.get(f"{at}/failures", cookies=copy, timeout=10).status_code == 200
    left = browser.post(f"{url}/logout", data={"form_token": token}, allow_redirects=False, timeout=10)
    assert left.headers["Location"] == "/login"
    copied = {"Cookie": f"{session.COOKIE}={copy[session.COOKIE]}"}
    again = requests.post(f"{second}/logout", headers=copied, allow_redirects=False, timeout=10)
    assert (again.status_code, again.headers["Location"]) == (303, "/login"), "an ended session is ended again"
    assert f'{session.COOKIE}=""' in again.headers["Set-Cookie"]
    foreign = requests.post(f"{second}/logout", headers={**copied, "Origin": "https://evil.example"}, timeout=10)
    assert foreign.status_code == 403
    for at in (url, second, make_gateway(**IN_PRODUCTION).url):
        assert requests.get(f"{at}/failures", cookies=copy, timeout=10).status_code == 401
        again = requests.post(f"{at}/failures/requeue", cookies=copy, data={"form_token": token}, timeout=10)
        assert again.status_code == 401
        assert other.get(f"{at}/failures", timeout=10).status_code == 200


def test_a_new_admin_key_ends_every_session(gateway: Gateway, make_gateway: Callable[..., Gateway]) -> None:
    browser, _ = signed_in(gateway)
    renewed = make_gateway(**{**IN_PRODUCTION, "admin_api_key": "another-key-of-production"})
    for at, status in ((gateway.url, 200), (renewed.url, 401)):
        assert requests.get(f"{at}/failures", cookies=dict(browser.cookies), timeout=10).status_code == status


def test_a_gateway_whose_database_is_away_opens_no_page_and_says_so(
    gateway: Gateway, make_gateway: Callable[..., Gateway]
) -> None:
    browser, _ = signed_in(gateway)
    away = "postgresql://nobody@127.0.0.1:1/none"
    cut_off = make_gateway(**IN_PRODUCTION, database_url=away, pending_images_database_url=away)
    answer = browser.get(f"{cut_off.url}/upload", headers={"Accept": "text/html"}, timeout=10)
    assert answer.status_code == 503
    assert answer.headers["Content-Type"].startswith("text/html")
    assert "database cannot be reached" in answer.text
    assert "Sign out" not in answer.text
    deleting = requests.delete(f"{cut_off.url}/api/media/5", headers=gateway.as_worker, timeout=10)
    assert (deleting.status_code, "; send anything else again." in deleting.text) == (503, True)
    signing_in = requests.post(f"{cut_off.url}/login", data={"key": ADMIN}, timeout=10)
    assert signing_in.status_code == 503
    assert "cookie" not in signing_in.text, "the browser is not to blame"


def test_guesses_that_come_at_once_are_no_more_than_one_after_the_other(gateway: Gateway) -> None:
    def guess(_: int) -> int:
        return requests.post(f"{gateway.url}/login", data={"key": "guess"}, timeout=30).status_code

    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(guess, range(40)))
    assert answers.count(401) == login.ATTEMPTS
    assert answers.count(429) == 40 - login.ATTEMPTS


@pytest.mark.parametrize(
    "target", ["https://evil.example", "//evil.example", "/\\evil.example", "javascript:alert(1)", "//[", "/\t/evil"]
)
def test_the_login_leads_to_no_other_site(target: str) -> None:
    assert session.safe_target(target) == "/"


def test_a_session_ends_after_its_hours(make_gateway: Callable[..., Gateway]) -> None:
    gateway = make_gateway(**IN_PRODUCTION, session_hours=5 / 3600)
    browser, token = signed_in(gateway)
    assert token, "it has begun"
    cookies, url = dict(browser.cookies), f"{gateway.url}/failures"
    wait_for(lambda: requests.get(url, cookies=cookies, timeout=10).status_code == 401, "its end", 30)


def test_dagsters_proxy_is_told_who_it_is_or_where_to_sign_in(gateway: Gateway) -> None:
    vera = {session.COOKIE: session.cookie_of(gateway.settings, "vera@example.com", Role.VIEWER)}
    known = requests.get(f"{gateway.url}/auth/verify", cookies=vera, timeout=10)
    assert known.status_code == 204
    assert (known.headers["X-Imgpipe-User"], known.headers["X-Imgpipe-Role"]) == ("vera@example.com", "viewer")
    unknown = gateway.get("/auth/verify", **{"X-Original-URL": "https://dagster.example/runs"})
    assert unknown.status_code == 401
    where = f"{gateway.url}/login?next=https%3A%2F%2Fdagster.example%2Fruns"
    assert unknown.headers["X-Imgpipe-Sign-In"] == unknown.json()["sign_in"] == where


def test_where_people_sign_in_the_key_opens_no_page_and_a_provider_that_is_not_there_is_named(
    make_gateway: Callable[..., Gateway],
) -> None:
    gateway = make_gateway(**IN_PRODUCTION, oidc_issuer="http://127.0.0.1:1", oidc_client_id="imgpipe")
    assert requests.post(f"{gateway.url}/login", data={"key": ADMIN}, timeout=10).status_code == 403
    assert gateway.get("/api/keys", Authorization=f"Bearer {ADMIN}").status_code == 200
    answer = gateway.get("/auth/sign-in")
    assert (answer.status_code, "The sign-in provider does not answer" in answer.json()["detail"]) == (502, True)
