"""Sign-in at a real OpenID Connect provider (npm's oidc-provider), in Chromium."""

import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
import requests
from joserfc.jwk import RSAKey
from playwright.sync_api import Browser, Page, expect

from imgpipe_orchestration.devstack.ports import free_port
from imgpipe_orchestration.devstack.process import HttpPart
from imgpipe_orchestration.identity import audit
from imgpipe_orchestration_tests.devstack.running import wait_for
from imgpipe_orchestration_tests.gateway.browser import NPM
from imgpipe_orchestration_tests.gateway.test_limits import KEYS
from imgpipe_orchestration_tests.lacking import lacking
from imgpipe_orchestration_tests.media.conftest import Gateway

pytestmark = pytest.mark.slow

SECRET = "the+secret/of our client=100%at-the-provider"
ROLES = {"image-ops": "operator", "admins": "admin", "Vera@Example.com": "viewer"}
GROUPS = {"olga": ["image-ops"], "ada": ["image-ops", "admins"], "nobody": ["cooks"]}


class Provider(HttpPart):
    """The provider, which a test may end and begin anew."""

    name = "oidc-provider"
    health_path = "/.well-known/openid-configuration"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, free_port())
        self.back = ""
        """The gateway's URL, known once it listens."""
        self.key = RSAKey.generate_key(2048, {"use": "sig", "kid": "first", "alg": "RS256"})

    def command(self) -> list[str]:
        return ["node", str(Path(__file__).with_name("provider.mjs"))]

    def begin(self, *, skew: int = 0, sloppy: bool = False) -> None:
        if not (NPM / "oidc-provider").is_dir() or shutil.which("node") is None:
            lacking("oidc-provider", "make npm-test-tools (needs npm and node)")
        client = {
            "client_id": "imgpipe",
            "client_secret": SECRET,
            **({"token_endpoint_auth_method": "client_secret_post"} if sloppy else {}),
            "redirect_uris": [f"{self.back}/auth/callback"],
            "post_logout_redirect_uris": [f"{self.back}/login"],
        }
        self.environ = {
            **os.environ,
            "NPM": str(NPM),
            "PORT": str(self.port),
            "CLIENT": json.dumps(client),
            "GROUPS": json.dumps(GROUPS),
            "JWK": json.dumps(self.key.as_dict(private=True)),
            "SKEW": str(skew),
            "SLOPPY": "yes" * sloppy,
        }
        self.start()
        self.wait_until_ready()


@pytest.fixture
def provider(tmp_path: Path) -> Iterator[Provider]:
    provider = Provider(tmp_path / "provider")
    yield provider
    provider.kill()


@pytest.fixture
def gateway(make_gateway: Callable[..., Gateway], provider: Provider) -> Gateway:
    gateway = make_gateway(
        imgpipe_env="production",
        **KEYS,
        oidc_issuer=provider.url,
        oidc_client_id="imgpipe",
        oidc_client_secret=SECRET,
        oidc_roles=json.dumps(ROLES),
    )
    provider.back = gateway.url
    provider.begin()
    return gateway


def sign_in(page: Page, gateway: Gateway, who: str, path: str = "/failures") -> None:
    """From our login to the provider's form, its consent, and back."""
    page.goto(gateway.url + path)
    page.get_by_role("link", name=re.compile("Sign in at")).click()
    page.locator("input[name=login]").fill(who)
    page.locator("input[name=password]").fill("any")
    page.locator("button[type=submit]").click()
    page.get_by_role("button", name="Continue").click()


@contextmanager
def a_page(browser: Browser) -> Iterator[Page]:
    """A page that may go to the provider as well."""
    with browser.new_context() as context:
        context.set_default_timeout(30_000)
        expect.set_options(timeout=30_000)
        yield context.new_page()


@contextmanager
def signed_in(browser: Browser, gateway: Gateway, who: str, path: str = "/failures") -> Iterator[Page]:
    with a_page(browser) as page:
        sign_in(page, gateway, who, path)
        yield page


def actions(gateway: Gateway) -> list[tuple[str, str]]:
    return [(row["action"], row["who"]) for row in audit.page(gateway.services.engine, limit=50)]


@pytest.mark.parametrize(
    ("who", "role", "hidden"),
    [("vera", "viewer", {"Upload", "Keys", "Audit"}), ("olga", "operator", {"Keys", "Audit"}), ("ada", "admin", set())],
)
def test_people_get_the_role_of_their_group_or_address(
    gateway: Gateway, browser: Browser, who: str, role: str, hidden: set[str]
) -> None:
    with signed_in(browser, gateway, who) as page:
        expect(page).to_have_url(f"{gateway.url}/failures")
        expect(page.locator("#who")).to_have_text(f"{who}@example.com ({role})")
        menu = set(page.get_by_role("navigation", name="Pages").get_by_role("link").all_inner_texts())
        assert {"Upload", "Keys", "Audit"} - menu == hidden
        answer = page.goto(f"{gateway.url}/keys")
        assert answer is not None
        assert answer.status == (200 if role == "admin" else 403)
        page.goto(f"{gateway.url}/upload")
        expect(page.locator("form#upload")).to_be_visible(visible=role != "viewer")
    assert actions(gateway)[0] == ("sign in", f"{who}@example.com")


def test_somebody_without_a_role_is_refused_and_told_why(gateway: Gateway, browser: Browser) -> None:
    with signed_in(browser, gateway, "nobody") as page:
        expect(page.get_by_text("nobody is signed in at the provider, but has no role here")).to_be_visible()
        assert [one["name"] for one in page.context.cookies() if one["name"] == "imgpipe_session"] == []
        page.get_by_role("button", name="Sign out at the provider").click()  # which would go on as the same person
        page.get_by_role("button", name="Yes, sign me out").click()
        expect(page).to_have_url(f"{gateway.url}/login")
    assert actions(gateway) == [("sign in refused", "nobody")], "the address is not verified"


def test_signing_out_ends_the_session_here_at_the_provider_and_in_every_copy(
    gateway: Gateway, provider: Provider, browser: Browser
) -> None:
    with signed_in(browser, gateway, "olga") as page:
        copied = {one["name"]: one["value"] for one in page.context.cookies() if one["name"] == "imgpipe_session"}
        assert requests.get(f"{gateway.url}/failures", cookies=copied, timeout=30).status_code == 200
        page.get_by_role("button", name="Sign out").click()
        page.get_by_role("button", name="Yes, sign me out").click()
        expect(page).to_have_url(re.compile(f"{gateway.url}/login.*"))
        page.get_by_role("link", name=re.compile("Sign in at")).click()
        expect(page.locator("input[name=login]")).to_be_visible()  # the provider asks who it is, too
    again = requests.post(f"{gateway.url}/logout", cookies=copied, timeout=30)
    assert f'href="{provider.url}/session/end?' in again.text, "as it does to whoever comes with an ended session"
    elsewhere = requests.get(f"{gateway.url}/failures", cookies=copied, allow_redirects=False, timeout=30)
    assert elsewhere.status_code == 401


def test_a_provider_that_is_away_is_named_and_ends_nobodys_session(
    gateway: Gateway, provider: Provider, browser: Browser
) -> None:
    with signed_in(browser, gateway, "olga") as page:
        provider.kill()
        page.goto(f"{gateway.url}/media")
        expect(page.locator("#who")).to_contain_text("olga")
        page.get_by_role("button", name="Sign out").click()
        wait_for(lambda: "imgpipe_session" not in str(page.context.cookies()), "the session's end", 30)
    fresh = requests.get(f"{gateway.url}/auth/sign-in", timeout=30, allow_redirects=False)
    assert fresh.status_code in {
        303,
        502,
    }  # the metadata may still be known; then the browser meets the provider itself
    assert ("sign out", "olga@example.com") in actions(gateway)


def test_a_signing_key_may_change_and_clocks_may_be_five_minutes_apart(
    gateway: Gateway, provider: Provider, browser: Browser
) -> None:
    with signed_in(browser, gateway, "olga"):
        pass
    provider.kill()
    provider.key = RSAKey.generate_key(2048, {"use": "sig", "kid": "second", "alg": "RS256"})
    for skew in (300, -300):
        provider.begin(skew=skew)
        with signed_in(browser, gateway, "ada") as page:
            expect(page.locator("#who")).to_have_text("ada@example.com (admin)")
        provider.kill()


def test_a_provider_may_take_the_secret_in_the_body_only_and_lack_userinfo_where_the_id_token_says_enough(
    gateway: Gateway, provider: Provider, browser: Browser
) -> None:
    provider.kill()
    provider.begin(sloppy=True)
    with signed_in(browser, gateway, "vera") as page:
        expect(page.locator("#who")).to_have_text("vera@example.com (viewer)")
    with signed_in(browser, gateway, "olga") as page:
        expect(page.get_by_text("The sign-in provider does not answer")).to_be_visible()


def test_a_stolen_state_and_a_replayed_code_are_worth_nothing(gateway: Gateway, browser: Browser) -> None:
    with a_page(browser) as page:
        callbacks: list[str] = []
        page.on("request", lambda asked: callbacks.append(asked.url) if "/auth/callback?" in asked.url else None)
        sign_in(page, gateway, "olga")
        expect(page.locator("#who")).to_contain_text("olga")
        (used,) = callbacks
        again = page.goto(used)
        assert again is not None
        assert again.status == 401
    # Without the browser that began it, and with one that began another.
    assert requests.get(used, timeout=30, allow_redirects=False).status_code == 401
    thief = requests.Session()
    begun = thief.get(f"{gateway.url}/auth/sign-in", timeout=30, allow_redirects=False)
    assert parse_qs(urlsplit(begun.headers["Location"]).query)["code_challenge_method"] == ["S256"]
    assert thief.get(used, timeout=30, allow_redirects=False).status_code == 401
    state, code = (parse_qs(urlsplit(u).query)[n] for u, n in ((begun.headers["Location"], "state"), (used, "code")))
    answer = thief.get(f"{gateway.url}/auth/callback", params={"state": state, "code": code}, timeout=30)
    assert "the audit tells an admin why" in answer.text
    assert "invalid_grant" in audit.page(gateway.services.engine, limit=1)[0]["after"]["reason"]
    assert thief.get(f"{gateway.url}/failures", timeout=30, allow_redirects=False).status_code == 401
