"""A whole stack with marked secrets and partners that tell what they were sent: nobody else may see any of them."""

import re
import secrets
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import jwt
import psycopg
import pytest
import requests

from imgpipe_orchestration.devstack.demo.runner import SCENARIOS
from imgpipe_orchestration.devstack.demo.scenario import Result, Stack
from imgpipe_orchestration.devstack.ports import free_port
from imgpipe_orchestration.devstack.postgres import Postgres
from imgpipe_orchestration_tests.conftest import StandInAccess
from imgpipe_orchestration_tests.devstack.running import graphql, wait_for, whole
from imgpipe_orchestration_tests.media.conftest import picture
from imgpipe_orchestration_tests.partners.wire import Server, reply, serving
from imgpipe_orchestration_tests.parts import ensure_database, running

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

NAMES = (
    *("MEDIA_API_KEY", "MAIN_API_KEY", "ADMIN_API_KEY", "USER_JWT_SECRET", "SECRET_KEY", "METRICS_API_KEY"),
    *("OPENAI_API_KEY", "GOOGLE_VISION_API_KEY", "FLOWISE_API_KEY", "EXTERNAL_API_KEY", "BACKEND_API_KEY"),
    *("S3_ACCESS_KEY", "S3_SECRET_KEY", "DATABASE_PASSWORD", "WEBHOOK", "SAS", "WRONG_KEY"),
)
"""Without a form of their own, so that only what is known to be secret is found to be."""
MARKS = {name: f"q{secrets.token_hex(20)}" for name in NAMES}


def partner_of(path: str) -> str:
    return path.split("/")[1]


@contextmanager
def talkative(standins: str) -> Iterator[Server]:
    """The partners: the first and every third answer of each is a fault or a refusal that repeats what was sent."""

    def behave(handler: BaseHTTPRequestHandler, number: int) -> None:
        path, headers, body = server.requests[number]
        if path.startswith("/services/"):
            reply(handler, b"ok")
            return
        before = sum(partner_of(request[0]) == partner_of(path) for request in server.requests[:number])
        if before % 3 == 0 and not path.startswith("/_standin"):
            told = f"{dict(handler.headers)} " + " ".join(value.split()[-1] for value in handler.headers.values())
            reply(handler, told.encode(), (500, 400, 401, 200)[before // 3 % 4], X_Echo=told[:400])
            return
        passed = {k: v for k, v in headers.items() if k not in {"host", "content-length", "connection"}}
        answer = requests.request(handler.command, standins + path, headers=passed, data=body, timeout=60)
        kind = answer.headers.get("Content-Type", "text/plain")
        reply(handler, answer.content, answer.status_code, Content_Type=kind)

    with serving(behave) as server:
        yield server


@contextmanager
def command_lines() -> Iterator[set[str]]:
    """What `ps` shows to everybody, while the block runs."""
    seen: set[str] = set()
    stop = threading.Event()

    def look() -> None:
        while not stop.wait(0.1):
            for process in Path("/proc").glob("[0-9]*/cmdline"):
                try:
                    seen.add(process.read_bytes().replace(b"\0", b" ").decode(errors="replace"))
                except OSError:
                    continue  # it has ended

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield seen
    finally:
        stop.set()
        thread.join()


def leaks(where: str, text: str) -> list[str]:
    """The marked secrets in a text, each with what stands around it."""
    found = []
    for name, mark in MARKS.items():
        if (at := text.find(mark)) >= 0:
            found.append(f"{name} in {where}: ...{text[max(0, at - 200) : at + 80]}".replace(mark, "<HERE>"))
    return found


def rows_of(url: str) -> Iterator[tuple[str, str]]:
    """Every row of a database, by its table."""
    with psycopg.connect(url.replace("+psycopg2", "")) as connection:
        tables = connection.execute(
            "select format('%I.%I', schemaname, tablename) from pg_tables where schemaname not in "
            "('pg_catalog', 'information_schema')"
        ).fetchall()
        for (table,) in tables:
            for (row,) in connection.execute(f"select t::text from {table} t".encode()):
                yield table, row


def feed(stack: Stack) -> None:
    """Work for every pipeline, some of it broken."""
    for pipeline, scenario in SCENARIOS.items():
        next(scenario(stack, Result(pipeline)))  # feeds, and looks once
    user = stack.user_headers(77)
    stack.request("PATCH", "/users/me", headers=user, files={"logo_image": ("a.jpg", picture()[:3000])})
    stack.request(
        "POST", "/api/upload/listing_image", headers=user, files={"images": ("a.jpg", picture()[:3000])},
        data={"listing_title": "Broken"},
    )  # fmt: skip


LAUNCH = """
    mutation Launch($params: ExecutionParams!) { launchRun(executionParams: $params) {
        __typename ... on LaunchRunSuccess { run { runId } } } }
"""


TICKS = """
    query Ticks($selector: SensorSelector!) { sensorOrError(sensorSelector: $selector) {
        ... on Sensor { sensorState { ticks(limit: 1, statuses: [SKIPPED, SUCCESS]) { id } } } } }
"""
REPOSITORY = {"repositoryLocationName": "imgpipe", "repositoryName": "__repository__"}


def alerts_watch(stack: Stack) -> bool:
    """Whether the sensor has looked once: what failed before its first look is not news to it."""
    answer = graphql(stack, TICKS, selector=REPOSITORY | {"sensorName": "alert_on_failed_runs"})
    return bool(answer["sensorOrError"]["sensorState"]["ticks"])


def launch_what_fails(stack: Stack) -> None:
    """A run that ends badly, which the webhook is to be told of."""
    selector = REPOSITORY | {"pipelineName": "garbage_collection"}
    config = {"ops": {"collect": {"config": {"pipelines": [MARKS["WRONG_KEY"][:8]]}}}}
    answer = graphql(stack, LAUNCH, params={"selector": selector, "mode": "default", "runConfigData": config})
    assert answer["launchRun"]["__typename"] == "LaunchRunSuccess", answer


def error_pages(stack: Stack) -> Iterator[tuple[str, str]]:
    """What a stranger is told who tries keys, ours and wrong ones, where they do not belong."""
    session = jwt.encode({"sub": "7", "exp": 1}, MARKS["USER_JWT_SECRET"], "HS256")
    for key in (MARKS["WRONG_KEY"], MARKS["MEDIA_API_KEY"], session):
        for method, path in (
            *(("GET", "/users/me"), ("GET", "/api/media/pending/all"), ("POST", "/api/media/complete/999")),
            *(("GET", f"/serve/{MARKS['WRONG_KEY']}"), ("POST", "/login"), ("GET", "/metrics"), ("GET", "/health")),
            *(("POST", "/api/jobs"), ("GET", "/openapi.json"), ("GET", "/failures"), ("GET", "/api/avatars/tasks")),
        ):
            answer = stack.request(
                method, path, headers={"Authorization": f"Bearer {key}"}, data={"key": key}, allow_redirects=False
            )
            yield f"{method} {path}", f"{answer.headers} {answer.text}".replace(MARKS["WRONG_KEY"], "")


def unfinished(url: str) -> int:
    """How much has not been tried yet. Healing is a second try, and failing partners make more and more of it."""
    with psycopg.connect(url) as connection:
        row = connection.execute(
            "select (select count(*) from work_items where state in ('waiting', 'claimed') and attempt = 0"
            " and queue <> 'media_healing') + (select count(*) from job_instances where status = 'queued')"
        ).fetchone()
    assert row
    return int(row[0])


def test_no_secret_is_seen_in_logs_events_rows_answers_or_command_lines(
    open_folder: Path, standins: StandInAccess
) -> None:
    with (
        running(Postgres(open_folder / "rows", free_port())) as rows,
        talkative(standins.url) as partners,
        command_lines() as shown,
    ):
        login = f"postgres:{MARKS['DATABASE_PASSWORD']}@"
        urls = {
            "DATABASE_URL": ensure_database(rows, "imgpipe").replace("postgres@", login),
            "DAGSTER_PG_URL": ensure_database(rows, "dagster").replace("postgres@", login),
        }
        assert all(MARKS["DATABASE_PASSWORD"] in url for url in urls.values())
        analyses = f"{partners.url}/vision-analysis/api/v1/documents/vision_analysis"
        settings = dict(
            **{name: mark for name, mark in MARKS.items() if name not in {"DATABASE_PASSWORD", "WEBHOOK", "SAS"}},
            **urls,
            ALERT_WEBHOOK_URL=f"{partners.url}/services/{MARKS['WEBHOOK']}",
            OPENAI_BASE_URL=f"{partners.url}/openai/v1",
            GOOGLE_VISION_ENDPOINT=f"{partners.url}/google-vision",
            FLOWISE_BASE_URL=f"{partners.url}/flowise",
            EXTERNAL_API_GET_URL=analyses,
            EXTERNAL_API_POST_URL=f"{analyses}/upload",
            ALLOWED_PRIVATE_HOSTS="127.0.0.0/8",
            LOG_LEVEL="DEBUG",
            LOG_FORMAT="json",
        )
        found: list[str] = []
        with whole(open_folder / "data", "--port", "0", **settings) as up:
            stack = Stack(up.environment)
            feed(stack)
            wait_for(lambda: alerts_watch(stack), "the sensor of failed runs to look")
            launch_what_fails(stack)
            wait_for(lambda: unfinished(urls["DATABASE_URL"]) == 0, "all of it to be tried", 280)

            def told() -> list[str]:
                webhook = f"/services/{MARKS['WEBHOOK']}"
                return [body.decode() for path, _, body in partners.requests if path == webhook]

            wait_for(lambda: "*garbage_collection* failed" in "".join(told()), "the webhook to be told of the run")
            messages = told()
            runs = [run for message in messages for run in re.findall(r"/runs/([0-9a-f-]{36})", message)]
            assert len(set(runs)) == len(messages), f"one message for each run: {messages}"
            found += leaks("the messages to the webhook", "".join(messages))
            for where, text in error_pages(stack):
                found += leaks(where, text)
        found += leaks("ps", " ".join(shown))
        found += leaks("the output of imgpipe up", up.output)
        for url in urls.values():
            for table, row in rows_of(url):
                found += leaks(table, row)
        files = [file for folder in ("logs", "dagster") for file in (open_folder / "data" / folder).rglob("*")]
        texts = {str(file): file.read_text(errors="replace") for file in files if file.is_file()}
        for name, text in texts.items():
            found += leaks(name, text)
    assert len(texts) > 5
    assert sum(text.count("***") for text in texts.values()) > 10, "nothing was there to be taken out"
    asked = {partner_of(path) for path, _, _ in partners.requests}
    assert asked >= {"openai", "google-vision", "flowise", "vision-analysis", "services"}, "not all are asked"
    assert not found, "\n".join(found[:30])
