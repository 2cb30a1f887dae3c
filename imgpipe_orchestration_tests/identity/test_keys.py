"""Named keys: made once, kept as a hash, with one role, ended by time or by hand at every gateway."""

import json
import re
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest
import requests
from click.testing import CliRunner
from sqlalchemy import Engine, text

from imgpipe_orchestration.cli import imgpipe
from imgpipe_orchestration.errors import BadInput, Conflict, NotFound
from imgpipe_orchestration.identity import keys
from imgpipe_orchestration.identity.model import Role
from imgpipe_orchestration.settings import Settings
from imgpipe_orchestration.storage.rows import transaction
from imgpipe_orchestration_tests.devstack.running import wait_for
from imgpipe_orchestration_tests.gateway.live import live
from imgpipe_orchestration_tests.gateway.test_limits import KEYS, produced
from imgpipe_orchestration_tests.identity.conftest import signed_in
from imgpipe_orchestration_tests.media.conftest import Gateway

TOLD_WITHIN = 6.0


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def made(gateway: Gateway, role: Role, name: str = "", **more: float) -> str:
    return keys.create(gateway.services.engine, name or role.value, role, by="a test", **more)[1]


def test_a_key_is_shown_once_and_stored_as_a_hash(production: Gateway) -> None:
    body = {"name": "ci/shop", "role": "operator", "expires_days": 90}
    answer = requests.post(f"{production.url}/api/keys", json=body, headers=bearer(KEYS["admin_api_key"]), timeout=30)
    assert answer.status_code == 201
    key = answer.json()["key"]
    assert re.fullmatch(r"imgp_[A-Za-z0-9]{32}", key)
    listed = requests.get(f"{production.url}/api/keys", headers=bearer(KEYS["admin_api_key"]), timeout=30)
    assert [(one["name"], one["role"], one["created_by"]) for one in listed.json()["keys"]] == [
        ("ci/shop", "operator", "ADMIN_API_KEY")
    ]
    url = f"{production.url}/api/keys/ci/shop"
    assert requests.delete(url, headers=bearer(KEYS["admin_api_key"]), timeout=30).status_code == 200
    with transaction(production.services.engine) as connection:
        everything = str(connection.execute(text("select * from api_keys")).all())
        everything += str(connection.execute(text("select * from audit")).all())
    assert key not in listed.text + everything
    assert "shop" in everything


@pytest.mark.parametrize(
    ("days", "name"),
    [(0.0, "a"), (-1.0, "a"), (1e9, "a"), *((None, name) for name in ("", "a\nb", ".", "..", "a/../b", "a/."))],
)
def test_a_key_that_makes_no_sense_is_refused(engine: Engine, days: float | None, name: str) -> None:
    with pytest.raises(BadInput):
        keys.create(engine, name, Role.VIEWER, by="a test", days=days)


def test_the_page_refuses_a_key_for_an_infinite_time_and_keeps_what_was_typed(production: Gateway) -> None:
    browser, token = signed_in(production)
    for days in ("inf", "nan", "1e999"):
        key = {"form_token": token, "name": "shop", "role": "viewer", "days": days}
        answer = browser.post(f"{production.url}/keys", data=key, timeout=30)
        assert (answer.status_code, "must be a number above 0" in answer.text) == (422, True)
        assert f'value="{days}"' in answer.text
    headers = bearer(KEYS["admin_api_key"]) | {"Content-Type": "application/json"}
    body = '{"name": "shop", "role": "viewer", "expires_days": 1e999}'
    assert requests.post(f"{production.url}/api/keys", body, headers=headers, timeout=30).status_code == 422


def test_a_name_is_free_again_once_its_key_has_ended(production: Gateway) -> None:
    engine = production.services.engine
    made(production, Role.VIEWER, "shop")
    with pytest.raises(Conflict):
        made(production, Role.ADMIN, "shop")
    keys.revoke(engine, "shop")
    with pytest.raises(NotFound):
        keys.revoke(engine, "shop")
    ending = made(production, Role.VIEWER, "shop", days=1)
    assert keys.find(engine, ending) is not None
    production.rows("update api_keys set expires_at = now() + interval '1 second' where name = 'shop'")
    keys._known.clear()
    wait_for(lambda: keys.find(engine, ending) is None, "the key's end", 30)
    assert keys.find(engine, made(production, Role.ADMIN, "shop")) is not None


def test_the_page_revokes_the_key_of_its_row_whatever_the_name(production: Gateway) -> None:
    for name in ("b", "other"):
        made(production, Role.VIEWER, name)
    production.rows("update api_keys set name = 'a/../b' where name = 'other'")  # of before such names were refused
    browser, _ = signed_in(production)
    page = browser.get(f"{production.url}/keys", timeout=30).text
    form = next(form for form in re.findall("<form.*?</form>", page) if "Revoke the key a/../b?" in form)
    action = re.findall('action="(.*?)"', form)[0]
    browser.post(production.url + action, data=re.findall('name="(.*?)" value="(.*?)"', form), timeout=30)
    still = [key.name for key in keys.every(production.services.engine) if key.revoked_at is None]
    assert still == ["b"]


@contextmanager
def fifty_at_work(url: str, key: str, seen: list[tuple[float, float, int]]) -> Iterator[None]:
    """Requests with the key all the time, by ten clients; `seen` gets when each began and ended, and its answer."""
    over = threading.Event()

    def ask() -> None:
        with requests.Session() as session:
            while not over.is_set():
                began = time.monotonic()
                answer = session.get(f"{url}/api/avatars/figures", headers=bearer(key), timeout=60)
                seen.append((began, time.monotonic(), answer.status_code))

    threads = [threading.Thread(target=ask) for _ in range(5)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        over.set()
        for thread in threads:
            thread.join(60)


def test_a_revoked_key_stops_at_both_gateways_while_it_is_used(settings: Settings, production: Gateway) -> None:
    seen: dict[str, list[tuple[float, float, int]]] = {"here": [], "there": []}
    key = made(production, Role.VIEWER)
    with live(produced(settings)) as other, ExitStack() as at_work:
        for url in (production.url, other):  # build their routes at the first request, and not both at once
            assert requests.get(f"{url}/api/avatars/figures", headers=bearer(key), timeout=30).status_code == 200
        for url, answers in zip((production.url, other), seen.values(), strict=True):
            at_work.enter_context(fifty_at_work(url, key, answers))
        wait_for(lambda: all(len(of) > 50 for of in seen.values()), "fifty answers each", 60)
        asked = time.monotonic()
        keys.revoke(production.services.engine, "viewer")
        revoked = time.monotonic()
        wait_for(lambda: all(of[-1][2] in {401, 429} for of in seen.values()), "a refusal at both", TOLD_WITHIN + 30)
        time.sleep(0.5)  # further requests, none of which may be let in again
    for answers in seen.values():
        assert {status for _, ended, status in answers if ended < asked} == {200}
        assert {status for began, _, status in answers if began > revoked + TOLD_WITHIN} <= {401, 429}
        assert any(status == 401 for *_, status in answers)


def test_refused_credentials_leave_one_line_a_minute(production: Gateway, caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(20):
        requests.get(f"{production.url}/api/avatars/figures", headers=bearer("wrong-and-secret"), timeout=30)
    lines = [record for record in caplog.records if record.message == "credentials refused"]
    assert [(line.__dict__["address"], line.__dict__["route"]) for line in lines] == [
        ("127.0.0.1", "GET /api/avatars/figures")
    ]
    assert "wrong-and-secret" not in caplog.text


def test_the_command_makes_lists_and_revokes(environment: None) -> None:
    run = CliRunner()
    created = run.invoke(imgpipe, ["keys", "create", "shop", "--role", "operator", "--expires", "90d"])
    assert re.fullmatch(r"imgp_[A-Za-z0-9]{32}\n", created.output), created.output
    (listed,) = json.loads(run.invoke(imgpipe, ["keys", "list", "--json"]).output)
    assert (listed["name"], listed["role"], listed["revoked_at"]) == ("shop", "operator", None)
    assert listed["expires_at"] is not None
    assert run.invoke(imgpipe, ["keys", "revoke", "shop"]).exit_code == 0
    assert "ended" in run.invoke(imgpipe, ["keys", "list"]).output
    assert run.invoke(imgpipe, ["keys", "create", "x", "--role", "viewer", "--expires", "soon"]).exit_code == 2
