"""The audit: a row with each change, in its transaction; rows that nothing changes."""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import requests
from sqlalchemy import Engine, create_engine, text
from sqlalchemy.exc import DBAPIError

from imgpipe_orchestration.identity import audit, keys
from imgpipe_orchestration.identity.audit import Entry
from imgpipe_orchestration.identity.model import Caller, Kind, Role
from imgpipe_orchestration.media.lifecycle import register_now
from imgpipe_orchestration.storage.rows import transaction
from imgpipe_orchestration_tests.gateway.pages.rows import failed_media
from imgpipe_orchestration_tests.gateway.test_limits import KEYS
from imgpipe_orchestration_tests.identity.conftest import signed_in
from imgpipe_orchestration_tests.media.conftest import Gateway, picture
from imgpipe_orchestration_tests.vision_reports.test_routes import DOCUMENTED

ADMIN = {"Authorization": f"Bearer {KEYS['admin_api_key']}"}
JOB = {**DOCUMENTED, "external_api_key": "a-token-that-nobody-may-read"}


def rows(gateway: Gateway, **filters: Any) -> list[dict[str, Any]]:
    return audit.page(gateway.services.engine, limit=100, **filters)


def test_each_change_by_a_key_is_one_row(production: Gateway) -> None:
    failed_media(production.services, 1)
    _, key = keys.create(production.services.engine, "night shift", Role.OPERATOR, by="a test")
    headers = {"Authorization": f"Bearer {key}"}
    body = {"count": 2, "brief": "two people"}
    task = requests.post(f"{production.url}/api/avatars/tasks", json=body, headers=headers, timeout=30).json()
    for _ in range(2):  # the second one finds nothing to cancel
        url = f"{production.url}/api/avatars/tasks/{task['task_id']}/cancel"
        requests.post(url, headers=headers, timeout=30)
    requests.get(f"{production.url}/api/avatars/tasks", headers=headers, timeout=30)
    requests.post(f"{production.url}/api/avatars/tasks/99/cancel", headers=headers, timeout=30)
    written = rows(production)
    assert [(row["action"], row["subject"]) for row in written] == [
        ("cancel avatars", task["task_id"]),
        ("ask for avatars", task["task_id"]),
    ]
    assert {(row["who"], row["role"], row["kind"], row["address"]) for row in written} == {
        ("night shift", "operator", "key", "127.0.0.1")
    }


def test_what_a_person_does_on_a_page_is_told_too_and_no_secret(production: Gateway) -> None:
    failed_media(production.services, 1)
    requests.post(f"{production.url}/login", data={"key": "wrong"}, timeout=30)
    browser, token = signed_in(production)
    job = requests.post(f"{production.url}/cron-jobs", json=JOB, headers=ADMIN, timeout=30).json()
    key: dict[str, object] = {"name": "ci/shop", "role": "viewer"}
    for path, sent in (
        ("selected", {"action": "requeue", "what": "media/1"}),
        *(("keys", key), ("keys/revoke", key), ("erasures", {"user": 7, "confirmed": 1}), ("logout", {})),
    ):
        browser.post(f"{production.url}/{path}", data={**sent, "form_token": token}, timeout=30)
    written = rows(production)
    assert [(row["action"], row["subject"], row["who"], row["kind"]) for row in written] == [
        ("sign out", "", "ADMIN_API_KEY", "person"),
        ("erase user", "7", "ADMIN_API_KEY", "person"),
        ("revoke key", "ci/shop", "ADMIN_API_KEY", "person"),
        ("create key", "ci/shop", "ADMIN_API_KEY", "person"),
        ("requeue", "1 item", "ADMIN_API_KEY", "person"),
        ("create cron job", job["job_id"], "ADMIN_API_KEY", "environment"),
        ("sign in", "", "ADMIN_API_KEY", "person"),
        ("sign in refused", "", "unknown", "person"),
    ]
    assert JOB["external_api_key"] not in json.dumps(written)


def test_each_change_says_what_was_changed_from_what_to_what(production: Gateway) -> None:
    uploaded = production.upload(7, profile_image=picture()).json()["images"][0]["id"]
    media = register_now(production.services, uploaded, user=7)
    with transaction(production.services.engine) as connection:
        values = "(media_id, alt_text) values (:id, 'A vase')"
        connection.execute(text(f"insert into media_ai_analysis {values}"), {"id": media})
    keys.create(production.services.engine, "ci", Role.OPERATOR, by="a test")
    cron = requests.post(f"{production.url}/cron-jobs", json=JOB, headers=ADMIN, timeout=30).json()["job_id"]
    job, budget = {"id": "process-image-queue", "type": "process_images"}, {"scope": "total", "period": "day"}
    corrected = {"alt_text": "A bowl", "style": "baroque"}
    changes: list[tuple[str, dict[str, Any], tuple[str, str], dict[str, Any] | None, dict[str, Any] | None]] = [
        ("PUT /api/budgets", {**budget, "limit_usd": 5}, ("change budget", "total day"), None, {"limit_usd": "5"}),
        (
            *("PUT /api/budgets", {**budget, "limit_usd": 7}, ("change budget", "total day")),
            *({"limit_usd": "5"}, {"limit_usd": "7"}),
        ),
        (
            *("DELETE /api/budgets?scope=total&period=day", {}, ("delete budget", "total day")),
            *({"limit_usd": "7"}, None),
        ),
        (
            *(f"PATCH /api/media/analysis/{media}", corrected, ("correct analysis", str(media))),
            *({"alt_text": "A vase", "style": None}, corrected),
        ),
        (
            *(f"PUT /api/media/{media}/privacy", {"private": True}, ("change privacy", str(media))),
            *({"private": False}, {"private": True}),
        ),
        (
            "POST /api/jobs",
            {**job, "interval": "1m"},
            ("start job", job["id"]),
            {"interval": "10s"},
            {"interval": "1m"},
        ),
        ("POST /api/jobs", {**job, "interval": "2m"}, ("start job", job["id"]), {"interval": "1m"}, {"interval": "2m"}),
        (f"DELETE /api/jobs/{job['id']}", {}, ("stop job", job["id"]), {"enabled": True}, {"enabled": False}),
        ("POST /api/jobs/trigger", {}, ("run auto-marker", "c1"), None, None),
        (f"DELETE /cron-jobs/{cron}", {}, ("delete cron job", cron), {"name": JOB["name"]}, None),
        ("DELETE /api/keys/ci", {}, ("revoke key", "ci"), {"role": "operator"}, None),
    ]
    for request, body, what, before, after in changes:
        method, path = request.split(" ", 1)
        headers = {**ADMIN, "X-Customer-ID": "c1"}
        answer = requests.request(method, production.url + path, json=body, headers=headers, timeout=30)
        assert answer.ok, answer.text
        row = rows(production)[0]
        assert (row["action"], row["subject"]) == what
        for told, kept in ((before, row["before"]), (after, row["after"])):
            assert (kept and {name: kept[name] for name in told or kept}) == told, what
    assert JOB["external_api_key"] not in json.dumps(rows(production))


def test_no_stranger_fills_it_with_refused_sign_ins(make_gateway: Callable[..., Gateway]) -> None:
    gateway = make_gateway(oidc_issuer="https://sign-in.example", oidc_client_id="imgpipe")
    answers = [requests.get(f"{gateway.url}/auth/callback", timeout=30).status_code for _ in range(7)]
    assert answers == [401] * 5 + [429] * 2
    assert [row["action"] for row in rows(gateway)] == ["sign in refused"] * 5


@pytest.mark.parametrize("attack", ["update audit set who = 'nobody'", "delete from audit", "truncate audit"])
@pytest.mark.parametrize("table", ["audit", "its month"])
def test_rows_stay_as_they_were_written(engine: Engine, attack: str, table: str) -> None:
    audit.record(Entry(engine, Caller("eve", Kind.KEY, Role.ADMIN), "10.0.0.1", "delete image", "7"))
    with transaction(engine) as connection:
        month = connection.scalar(text("select tableoid::regclass::text from audit"))
    with pytest.raises(DBAPIError, match="The audit takes no"), transaction(engine) as connection:
        connection.execute(text(attack.replace("audit", str(month)) if table == "its month" else attack))
    assert [row["who"] for row in audit.page(engine, limit=9)] == ["eve"]


def test_a_change_that_cannot_be_recorded_is_not_made(production: Gateway) -> None:
    with transaction(production.services.engine) as connection:
        connection.execute(text("alter table audit rename to elsewhere"))
    answer = requests.post(f"{production.url}/cron-jobs", json=JOB, headers=ADMIN, timeout=30)
    assert answer.status_code == 503
    assert "audit could not be written" in answer.json()["detail"]
    assert requests.get(f"{production.url}/cron-jobs", headers=ADMIN, timeout=30).json()["jobs"] == []
    entered = requests.post(
        f"{production.url}/login", data={"key": KEYS["admin_api_key"]}, allow_redirects=False, timeout=30
    )
    assert entered.status_code == 503
    assert "imgpipe_session" not in entered.headers.get("Set-Cookie", "")


def test_any_text_can_be_recorded(engine: Engine) -> None:
    values = {"path": r"C:\u0000\x", "text": "a\0b\ud800", "number": float("nan")}
    audit.record(Entry(engine, Caller("eve", Kind.KEY, Role.ADMIN), action="correct", after=values))
    assert audit.page(engine, limit=9)[0]["after"] == {"path": r"C:\u0000\x", "text": "ab\ufffd", "number": None}


def test_a_change_needs_one_connection_only(engine: Engine) -> None:
    """Else as many changes at once as there are connections would wait for each other in a process that is new."""
    narrow = create_engine(engine.url, pool_size=1, max_overflow=0, pool_timeout=1)
    audit._ready.clear()
    entry = Entry(narrow, Caller("eve", Kind.KEY, Role.ADMIN), action="create key")
    with audit.begun(entry), transaction(narrow) as connection:
        connection.execute(text("insert into user_profiles (user_id) values (1)"))
    narrow.dispose()
    assert [row["action"] for row in audit.page(engine, limit=9)] == ["create key"]


def test_months_are_dropped_whole_when_they_are_old(engine: Engine) -> None:
    with transaction(engine) as connection:
        connection.execute(text("select audit_month(now() - interval '500 days'), audit_month(now())"))
        connection.execute(
            text("""
                insert into audit (at, who, kind, address, action, subject)
                select now() - make_interval(days => days), 'eve', 'key', '', days::text, ''
                from unnest(array[0, 500]) as days
            """)
        )
    assert audit.keep_months(engine, 400) == 1
    assert [row["action"] for row in audit.page(engine, limit=9)] == ["0"]
    assert audit.keep_months(engine, 400) == 0


def test_the_export_pages_filters_and_streams(production: Gateway) -> None:
    engine = production.services.engine
    for number in range(7):
        who = "eve" if number % 2 else "100%"
        audit.record(Entry(engine, Caller(who, Kind.KEY, Role.ADMIN), "", "delete image", str(number)))
    url = f"{production.url}/api/audit"
    first = requests.get(url, params={"limit": 4}, headers=ADMIN, timeout=30).json()
    rest = requests.get(url, params={"limit": 4, "cursor": first["next_cursor"]}, headers=ADMIN, timeout=30).json()
    assert [row["subject"] for row in first["rows"] + rest["rows"]] == list("6543210")
    assert rest["next_cursor"] is None
    found = requests.get(url, params={"who": "100%"}, headers=ADMIN, timeout=30).json()["rows"]
    assert {row["who"] for row in found} == {"100%"}
    for query, accept in (("", "application/x-ndjson"), ("?format=jsonl", "*/*")):
        lines = requests.get(url + query, headers={**ADMIN, "Accept": accept}, timeout=30).text.splitlines()
        assert [json.loads(line)["subject"] for line in lines] == list("6543210")


def test_the_page_tells_role_and_address_where_a_row_has_them(production: Gateway) -> None:
    for kind, address in ((Kind.KEY, "10.0.0.1"), (Kind.COMMAND, "")):
        changed = Entry(production.services.engine, Caller("eve", kind, Role.ADMIN), address, "delete image")
        audit.record(replace(changed, after={"name": "<b> שלום"}))
    page = signed_in(production)[0].get(f"{production.url}/audit?who=eve", timeout=30).text
    assert re.findall(r'eve <span class="soft">(.*)</span>', page) == ["admin", "admin, 10.0.0.1"]
    assert page.count("&#34;&lt;b&gt; שלום&#34;") == 2


def test_a_form_of_one_role_with_the_cookie_of_another_does_nothing(production: Gateway) -> None:
    (mine, _), (_, theirs) = signed_in(production), signed_in(production)
    sent = {"form_token": theirs, "name": "x", "role": "admin"}
    assert mine.post(f"{production.url}/keys", data=sent, timeout=30).status_code == 403
    assert keys.every(production.services.engine) == []
