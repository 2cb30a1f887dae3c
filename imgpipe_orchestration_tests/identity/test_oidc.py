"""What providers say in ways that the real one of `test_sign_in` does not."""

import json
import threading
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor, wait
from http.server import BaseHTTPRequestHandler
from typing import Any

import pytest
from joserfc import jwt
from joserfc.jwk import ECKey
from joserfc.jws import JWSRegistry

from imgpipe_orchestration.errors import PartnerAway
from imgpipe_orchestration.identity import oidc
from imgpipe_orchestration.identity.model import Role
from imgpipe_orchestration.identity.oidc import NoRole, Provider
from imgpipe_orchestration.settings import Settings
from imgpipe_orchestration_tests.partners.wire import reply, serving

ROLES = {"ops": "operator", "5": "viewer", "True": "viewer", "boss@example.com": "admin"}
KEY = ECKey.generate_key("P-256", {"kid": "a key of the tests"})
Claims = Mapping[str, Any]


def of(url: str) -> Provider:
    return Provider(Settings(oidc_issuer=url, oidc_client_id="imgpipe", oidc_roles=json.dumps(ROLES)))


def metadata(url: str) -> dict[str, str]:
    places = {"authorization_endpoint": "authorize", "token_endpoint": "token", "userinfo_endpoint": "userinfo"}
    return {"issuer": url, **{name: f"{url}/{path}" for name, path in places.items()}, "jwks_uri": f"{url}/keys"}


def role_of(id_token: Claims, userinfo: Claims) -> Role | None:
    """Which role somebody gets of whom the provider says this; None for nobody's."""
    started: dict[str, str] = {}

    def provider(handler: BaseHTTPRequestHandler, _: int) -> None:
        url = f"http://{handler.headers['Host']}"
        answer: Any
        if handler.path == "/token":
            times = {"iat": int(time.time()), "exp": int(time.time()) + 60}
            ours = {"iss": url, "aud": "imgpipe", "sub": "s1", "nonce": started["nonce"], **times}
            header = {"alg": "ES256", "x5c": ["MII" * 400], "unknown": 1}
            signed = jwt.encode(header, {**ours, **id_token}, KEY, registry=JWSRegistry(strict_check_header=False))
            answer = {"access_token": "a", "token_type": "Bearer", "expires_in": 60, "id_token": signed}
        elif handler.path == "/userinfo":
            answer = {"sub": "s1", **userinfo}
        elif handler.path == "/keys":
            ours = KEY.as_dict(private=False)
            others = [{**ours, "crv": "brainpoolP256r1", "kid": "b"}, {"kty": "AKP", "kid": "c"}, {**ours, "use": None}]
            answer = {"keys": [*others, ours]}
        else:
            answer = metadata(url)
        reply(handler, json.dumps(answer).encode(), Content_Type="application/json")

    with serving(provider) as server:
        _, begun = of(server.url).begin()
        started.update(begun)
        try:
            return of(server.url).finish(started, {"state": started["state"], "code": "x"}).role
        except NoRole:
            return None


@pytest.mark.parametrize("groups", [5, True, "5", ["5"], {"5": {"at": "us"}}])
def test_a_groups_claim_that_is_no_list_is_one_group_or_names_them(groups: object) -> None:
    assert role_of({"groups": groups, "email": "who@example.com"}, {}) is Role.VIEWER


PROVEN = {"email_verified": True}
BOSS = {"email": "boss@example.com"}
UNSAID = [{}, {"groups": None}, {"groups": []}, {"groups": ""}]


@pytest.mark.parametrize("empty", UNSAID, ids=str)
def test_groups_that_the_id_token_does_not_name_are_those_of_userinfo(empty: Claims) -> None:
    assert role_of({"email": "who@example.com", **empty}, {"groups": ["ops"]}) is Role.OPERATOR


@pytest.mark.parametrize(
    ("id_token", "userinfo", "role"),
    [
        ({"email": "who@example.com", **PROVEN}, BOSS, None),
        ({**BOSS, **PROVEN}, {"email": "who@example.com", "email_verified": False}, Role.ADMIN),
        ({**BOSS, "email_verified": False}, {**BOSS, **PROVEN}, None),
        (BOSS, {**BOSS, "email_verified": False}, None),
        (PROVEN, {**BOSS, "email_verified": False}, None),
        ({"email": None, "email_verified": False}, {**BOSS, **PROVEN}, Role.ADMIN),
        ({"groups": ["ops"]}, {"groups": ["5"]}, Role.OPERATOR),
    ],
)
def test_what_is_signed_counts_before_userinfo_and_an_address_is_proven_by_who_names_it(
    id_token: Claims, userinfo: Claims, role: Role | None
) -> None:
    assert role_of(id_token, userinfo) is role


def test_a_provider_that_hangs_holds_one_thread_and_is_left_alone_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    over = threading.Event()

    def hanging(handler: BaseHTTPRequestHandler, number: int) -> None:
        if number == 0:
            over.wait(30)
            reply(handler, status=503)
        else:
            reply(handler, json.dumps(metadata(f"http://{handler.headers['Host']}")).encode())

    with serving(hanging) as server, ThreadPoolExecutor(20) as pool:
        begun = [pool.submit(of(server.url).begin) for _ in range(20)]
        refused, held = wait(begun, oidc.PATIENCE + 3)
        over.set()
        assert len(held) == 1
        assert {type(one.exception()) for one in refused | held} == {PartnerAway}
        with pytest.raises(PartnerAway):
            of(server.url).begin()
        assert len(server.paths) == 1
        monkeypatch.setattr(oidc, "AWAY_SECONDS", 0.0)
        for _ in range(2):
            of(server.url).begin()
        assert len(server.paths) == 2


def test_who_signs_in_while_another_one_asks_the_provider_waits_for_the_same_answer() -> None:
    def slow(handler: BaseHTTPRequestHandler, _: int) -> None:
        time.sleep(0.5)
        reply(handler, json.dumps(metadata(f"http://{handler.headers['Host']}")).encode())

    with serving(slow) as server, ThreadPoolExecutor(20) as pool:
        begun = [pool.submit(of(server.url).begin) for _ in range(20)]
        assert all(one.result()[0].startswith(f"{server.url}/authorize") for one in begun)
        assert len(server.paths) == 1
