"""Who may do what: the table of `web.access` names every route, and every route does what the table says."""

import re
import time
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import jwt
import pytest

from imgpipe_orchestration.errors import Unauthenticated
from imgpipe_orchestration.gateway import limits, session
from imgpipe_orchestration.gateway.app import create_app
from imgpipe_orchestration.gateway.pages import routes as pages
from imgpipe_orchestration.identity import keys
from imgpipe_orchestration.identity.model import Role
from imgpipe_orchestration.settings import Settings
from imgpipe_orchestration.web.access import ACCESS, ANALYSIS_CLIENT, ANYBODY, REPORTER, USER
from imgpipe_orchestration.web.auth import user_of
from imgpipe_orchestration.web.headers import HEADERS
from imgpipe_orchestration_tests.client import Client
from imgpipe_orchestration_tests.gateway.test_limits import KEYS, produced, token
from imgpipe_orchestration_tests.vision_reports.test_routes import DOCUMENTED

BACKEND, METRICS = "a-good-key-of-the-analysis-backend", "a-good-key-of-prometheus-for-figures"


def credentials(who: str) -> set[str]:
    """The credentials that open a route of this kind. The operators' key opens all that have a role."""
    media = {KEYS["media_api_key"], KEYS["main_api_key"], KEYS["admin_api_key"]}
    return {
        "user": {token(), token(aud="authenticated"), token(sub=7), token(iat=time.time() + 5)},
        "owner": {token(), *media} - {KEYS["main_api_key"]},  # which any receiver of callbacks has
        "person": {token(), KEYS["admin_api_key"]},
        "uploader": {token(), KEYS["admin_api_key"]},
        "media reader": media,
        "media worker": media,
        "viewer": {KEYS["admin_api_key"]},
        "operator": {KEYS["admin_api_key"]},
        "admin": {KEYS["admin_api_key"]},
        "analysis client": {BACKEND, KEYS["admin_api_key"]},
        "prometheus": {METRICS, KEYS["admin_api_key"]},
    }[who]


TO_COME = {"sub": "7", "exp": time.time() + 3600}
WRONG = {
    "none": None,
    "wrong": "Bearer wrong",
    "empty": "Bearer ",
    "of another scheme": f"Basic {KEYS['admin_api_key']}",
    "the known one": "Bearer development-only-secret-do-not-use-in-production",
    "expired": f"Bearer {token(exp=time.time() - 1)}",
    "unsigned": f"Bearer {jwt.encode(TO_COME, '', 'none')}",
    "of nobody": f"Bearer {token(sub='0')}",
    "of a user in Python's digits": f"Bearer {token(sub='4_2')}",
    "of a user in Arabic digits": f"Bearer {token(sub='٤٢')}",
    "of a truth": f"Bearer {token(sub=True)}",
    "without an end": f"Bearer {jwt.encode({'sub': '7'}, KEYS['user_jwt_secret'], 'HS256')}",
    "signed by another": f"Bearer {jwt.encode(TO_COME, 'another-secret-of-at-least-32-bytes', 'HS256')}",
}


def table(*, of_pages: bool = False, to_all: bool = False) -> dict[tuple[str, str], str]:
    """Routes of the API, or those of the pages, which a session opens; and the name of their rule. Those that are open
    to anybody only where asked for."""
    shown, told = routes(pages.router), {route: rule.who for route, (rule, _) in ACCESS.items()}
    return {route: who for route, who in told.items() if (route in shown) is of_pages and (to_all or who != "anybody")}


@pytest.fixture(scope="module")
def client(module_settings: Settings) -> Iterator[Client]:
    with Client(create_app(module_settings), raise_server_exceptions=False, follow_redirects=False) as client:
        yield client


@pytest.fixture(scope="module", autouse=True)
def wrong_keys_are_not_counted() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(limits, "WRONG_KEYS_PER_MINUTE", 0)
        yield


@pytest.fixture(scope="module")
def module_settings() -> Settings:
    """Production on databases that are away: whoever is refused is refused before they are asked."""
    return produced(
        Settings(),
        database_url="postgresql://nobody@127.0.0.1:1/none",
        s3_endpoint="http://127.0.0.1:1",
        mongodb_url="mongodb://127.0.0.1:1/?serverSelectionTimeoutMS=100",
        backend_api_key=BACKEND,
        metrics_api_key=METRICS,
    )


def routes(of: Any) -> set[tuple[str, str]]:
    """Every route, whether OpenAPI tells of it or not."""
    return {(method, route.path) for route in _walked(of.routes) for method in route.methods - {"HEAD"}}


def _walked(found: list[Any]) -> Iterator[Any]:
    for route in found:
        if hasattr(route, "original_router"):  # FastAPI keeps included routers as they are
            yield from _walked(route.original_router.routes)
        else:
            yield route


def asked(client: Client, method: str, path: str, authorization: str | None) -> int:
    headers = {"Authorization": authorization} if authorization is not None else {}
    filled = re.sub(r"\{[^}]+\}", "1", path)
    return client.request(method, filled, headers=headers).status_code


def test_the_table_names_every_route_and_no_other(client: Client) -> None:
    assert set(ACCESS) == routes(client.app)


def test_a_method_that_a_path_does_not_take_is_answered_with_all_that_it_takes(client: Client) -> None:
    for path, methods in (("/cron-jobs/1", "DELETE, GET, HEAD, PATCH"), ("/keys", "GET, HEAD, POST")):
        answer = client.put(path)
        assert (answer.status_code, answer.headers["Allow"]) == (405, methods)


def test_tokens_without_an_end_are_taken_where_a_setting_says_so(module_settings: Settings) -> None:
    endless = WRONG["without an end"].removeprefix("Bearer ")
    assert user_of(endless, module_settings.model_copy(update={"user_jwt_needs_exp": False})) == 7
    with pytest.raises(Unauthenticated, match="never expires"):
        user_of(endless, module_settings)


def test_security_md_explains_every_rule() -> None:
    page = (Path(__file__).parents[2] / "SECURITY.md").read_text()
    explained = {name for row in re.findall(r"^\| ([a-z, ]+) \|", page, re.MULTILINE) for name in row.split(", ")}
    assert {rule.who for rule, _ in ACCESS.values()} <= explained


def test_every_change_by_a_person_has_a_name_in_the_audit() -> None:
    work = {USER.who, ANYBODY.who, ANALYSIS_CLIENT.who}  # uploads and what workers report
    nameless = {
        route for route, (rule, action) in ACCESS.items() if route[0] != "GET" and not action and rule.who not in work
    }
    assert nameless == {
        ("POST", "/api/media/{media_id}/signed-url"),
        ("POST", "/api/media/complete/{image_id}"),
    }


def test_openapi_hides_no_route_that_takes_a_key(client: Client) -> None:
    told = {
        (method.upper(), path)
        for path, methods in client.get("/openapi.json").json()["paths"].items()
        for method in methods
        if method != "head"
    }
    listed = {(method, re.sub(r":\w+}", "}", path)): who for (method, path), who in table(to_all=True).items()}
    assert told <= set(listed)
    assert {listed[one] for one in set(listed) - told} <= {"anybody"}


@pytest.mark.parametrize("how", WRONG)
def test_no_route_opens_without_its_key(client: Client, how: str) -> None:
    for method, path in table():
        assert asked(client, method, path, WRONG[how]) == 401, f"{method} {path} {how}"


def test_no_key_opens_a_route_of_somebody_else(client: Client) -> None:
    kinds = ("user", "media worker", "analysis client", "prometheus")
    everything = {key for kind in kinds for key in credentials(kind)}
    for (method, path), who in table().items():
        for key in everything - credentials(who):
            if who in {"user", "owner", "person", "uploader"} and key.count(".") == 2:
                continue  # every token of a user is one
            assert asked(client, method, path, f"Bearer {key}") == 401, f"{method} {path}"


def test_the_right_key_is_not_refused(client: Client) -> None:
    one_of_each = {who: route for route, who in table().items()}
    assert len(one_of_each) == 11
    for who, (method, path) in one_of_each.items():
        for key in credentials(who):
            assert asked(client, method, path, f"Bearer {key}") not in {401, 403}, f"{method} {path}"


def test_each_role_opens_what_the_table_says_and_nothing_more(settings: Settings) -> None:
    """By a named key on the API and by a session on the pages, whose forms need a token of their own as well."""
    production = produced(settings)
    shown = routes(pages.router)
    app = create_app(production)
    with Client(app, raise_server_exceptions=False, follow_redirects=False) as client:
        for role in Role:
            key = keys.create(app.state.services.engine, f"a {role}", role, by="a test")[1]
            by_key = {"Authorization": f"Bearer {key}"}
            by_session = {"Cookie": f"{session.COOKIE}={session.cookie_of(production, 'somebody', role)}"}
            for (method, path), (rule, _) in ACCESS.items():
                if rule in {ANYBODY, REPORTER} or path == "/events":  # which has no end
                    continue
                filled = re.sub(r"\{[^}]+\}", "1", path)
                headers = by_session if (method, path) in shown else by_key
                status = client.request(method, filled, headers=headers).status_code
                said = f"{method} {path} as {role}: {status}"
                if rule.role is None:
                    assert status == 401, said
                elif not role.covers(rule.role):
                    assert status == 403, said
                else:
                    assert status not in ({401} if (method, path) in shown else {401, 403}), said


def test_pages_show_each_role_only_what_it_may_do(settings: Settings) -> None:
    production = produced(settings)
    app = create_app(production)
    rules = {re.sub(r"\{[^}]+}", "[^/]+", f"{method}{path}"): rule for (method, path), (rule, _) in ACCESS.items()}
    sent: dict[Role, set[str]] = {}
    with Client(app, raise_server_exceptions=False, follow_redirects=False) as client:
        admin = {"Authorization": f"Bearer {KEYS['admin_api_key']}"}
        for path, body in (("/api/avatars/tasks", {"count": 1}), ("/cron-jobs", DOCUMENTED)):
            answer = client.post(path, json=body, headers=admin)
            assert answer.status_code in {200, 201, 202}, answer.text
        for role in Role:
            signed_in = {"Cookie": f"{session.COOKIE}={session.cookie_of(production, 'somebody', role)}"}
            seen, left = set(), ["/"]
            while left:
                seen.add(path := left.pop())
                answer = client.get(path, headers=signed_in)
                if answer.status_code == 303:
                    left.append(answer.headers["Location"])
                    continue
                assert answer.status_code == 200, f"{path} as {role}"
                if "text/html" not in answer.headers["content-type"]:
                    continue
                actions = {*re.findall(r'<form[^>]*method="post"[^>]* action="([^"?]+)', answer.text)} - {"/logout"}
                for action in actions:
                    (rule,) = (rule for route, rule in rules.items() if re.fullmatch(route, f"POST{action}"))
                    assert rule.role and role.covers(rule.role), f"{action} on {path} as {role}"
                sent[role] = sent.get(role, set()) | actions
                links = set(re.findall(r'<a [^>]*href="(/[^"?#]*)', answer.text)) - seen - {"/openapi.json"}
                left += [link for link in links if link not in left and not link.startswith("/api/")]
    assert sent[Role.VIEWER] == set()
    assert {"/avatars", "/listings"} <= sent[Role.OPERATOR] < sent[Role.ADMIN]
    assert {"/keys", "/erasures"} <= sent[Role.ADMIN]


def test_no_other_spelling_of_a_path_lets_a_viewer_in(settings: Settings) -> None:
    app = create_app(produced(settings))
    tricks = ({}, {"X-Original-URL": "/api/keys"}, {"X-HTTP-Method-Override": "GET"}, {"X-Imgpipe-Role": "admin"})
    with Client(app, raise_server_exceptions=False, follow_redirects=False) as client:
        key = keys.create(app.state.services.engine, "viewer", Role.VIEWER, by="a test")[1]
        for path, more in product(("/api/keys/", "/api/./keys", "/api/%6beys", "/API/keys"), tricks):
            answer = client.request("GET", path, headers={"Authorization": f"Bearer {key}", **more})
            assert answer.status_code in {307, 403, 404, 405}, f"{path} {more}"


def test_a_route_with_a_session_shows_nothing_without_one(client: Client) -> None:
    for method, path in table(of_pages=True):
        assert asked(client, method, path, None) in {303, 401, 403}, f"{method} {path}"


def test_every_answer_carries_the_headers(client: Client) -> None:
    for path in ("/openapi.json", "/users/me", "/no/such/path", "/metrics", "/temp_images/a/b"):
        answer = client.get(path)
        for name in HEADERS:
            assert answer.headers.get(name), f"{path} {name}"
    assert "Strict-Transport-Security" not in client.get("/openapi.json").headers


def test_https_is_asked_for_where_it_is_spoken(module_settings: Settings) -> None:
    client = Client(create_app(module_settings), base_url="https://imgpipe.example")
    assert client.get("/openapi.json").headers["Strict-Transport-Security"].startswith("max-age=")


OPEN_TO_THIS_MACHINE = [
    ("POST", "/api/avatars/tasks"),
    ("GET", "/cron-jobs"),
    ("DELETE", "/api/jobs/process-image-queue"),
    ("GET", "/metrics"),
    ("POST", "/batch-analysis/batches"),
]


def test_in_development_this_machine_needs_no_key_and_no_other_site_or_wrong_key_opens_what_is_open_to_it(
    settings: Settings,
) -> None:
    user = jwt.encode({"sub": "7", "exp": time.time() + 60}, settings.user_jwt_secret, "HS256")
    wrong = [{"Authorization": f"Bearer {key}"} for key in ("wrong", user, "imgp_" + "x" * 32)]
    sites = [{"Origin": "http://evil.example"}, {"Sec-Fetch-Site": "cross-site"}, {"Sec-Fetch-Site": "same-site"}]
    # Names of another site's for 127.0.0.1.
    hosts = [{"Host": name} for name in ("evil.example", "evil.example:8000", "169.254.1.1")]
    right = {"Authorization": f"Bearer {settings.admin_api_key}"}
    with Client(create_app(settings)) as client:
        for method, path in OPEN_TO_THIS_MACHINE:
            for headers in ({}, {"Origin": "http://localhost"}, *({**host, **right} for host in hosts)):
                assert client.request(method, path, headers=headers).status_code != 401, (method, path, headers)
            for headers in (*wrong, *hosts, *(sites if method != "GET" else ())):
                assert client.request(method, path, headers=headers).status_code == 401, (method, path, headers)


def test_debug_routes_exist_in_development_only(client: Client, settings: Settings) -> None:
    extra = routes(create_app(settings)) - routes(client.app)
    assert {path.split("/")[1] for _, path in extra} == {"debug"}
