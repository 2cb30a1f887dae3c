"""`imgpipe demo` with the whole stack: HTTP, sensors, daemon and runs."""

from __future__ import annotations

import contextlib
import io
import json
import os
import pty
import re
import select
import signal
import subprocess
import time
from collections import Counter
from decimal import Decimal
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
import requests
from rich.console import Console

from imgpipe_orchestration.cli import demo as command
from imgpipe_orchestration.devstack import photos, stackfile
from imgpipe_orchestration.devstack.demo import report, scenario
from imgpipe_orchestration.devstack.demo.media import MediaScenario
from imgpipe_orchestration.devstack.demo.runner import Result, let_runs_end, run, scenarios
from imgpipe_orchestration.devstack.demo.scenario import Stack
from imgpipe_orchestration.devstack.demo.vision_reports import VisionReportsScenario
from imgpipe_orchestration_tests.conftest import StandInAccess
from imgpipe_orchestration_tests.devstack.running import IMGPIPE, clean_environment, imgpipe, wait_for
from imgpipe_orchestration_tests.media.conftest import Gateway, gateway, make_gateway
from imgpipe_orchestration_tests.partners.wire import reply, serving

__all__ = ["gateway", "make_gateway"]


def demo(data_dir: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [*IMGPIPE, "demo", "--json", "--data", str(data_dir), *words]
    environ = clean_environment(GATEWAY_PORT="0", FLASK_PORT="0", DAGSTER_WEBSERVER_PORT="0")
    return subprocess.run(command, env=environ, capture_output=True, text=True, timeout=500, check=False)


def part(data_dir: Path, name: str) -> dict[str, object]:
    stack = stackfile.read(data_dir)
    assert stack is not None
    return next(part for part in stack.parts if part["name"] == name)


def test_a_real_external_api_is_left_alone_and_the_table_says_so() -> None:
    stack = Stack({"EXTERNAL_API_GET_URL": "https://api.example.com/api/v1/documents/vision_analysis"})
    (result,) = run(stack, scenarios(["vision_reports"]), lambda _: None)
    assert not result.ok
    assert "EXTERNAL_API_GET_URL names a real API" in result.failures[0]


def test_a_port_that_was_taken_is_said_of_the_stack_that_a_demo_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock, said = stackfile.StackLock(tmp_path), io.StringIO()
    urls = {"GATEWAY_URL": "http://127.0.0.1:20001", "DAGSTER_URL": "http://127.0.0.1:3000"}
    taken = "port 8000 is taken; gateway uses 20001"
    written = {"pid": 1, "started_at": "", "environment": urls, "parts": [], "notes": [taken]}

    def start(_: Path) -> None:
        lock.acquire()
        stackfile.write(tmp_path, written)

    monkeypatch.setattr(command, "_launch", start)
    with command._stack(tmp_path, Console(file=said), keep=True) as environment:
        assert environment == urls
    lock.release()
    assert said.getvalue().splitlines()[0] == taken


def test_demos_on_one_folder_share_the_cron_jobs_of_the_first(gateway: Gateway, standins: StandInAccess) -> None:
    """Each runs every hour from then on."""
    listing = standins.analyses_url
    addresses = {"EXTERNAL_API_GET_URL": listing, "EXTERNAL_API_POST_URL": f"{listing}/upload"}
    environ = {**gateway.settings.environment(), **addresses, "GATEWAY_URL": gateway.url, "EXTERNAL_API_KEY": "a-token"}
    for backend in ("http://127.0.0.1:8000", gateway.url):
        VisionReportsScenario(Stack({**environ, "BACKEND_API_URL": backend})).feed()
    jobs = gateway.get("/cron-jobs").json()["jobs"]
    assert [(job["name"].partition(":")[0], job["backend_api_url"]) for job in jobs] == [
        ("LexCorp", gateway.url),
        ("Oceanix", gateway.url),
    ]


def test_what_the_gallery_suggests_to_search_for_is_found_among_the_demos_images(gateway: Gateway) -> None:
    MediaScenario(Stack({**gateway.settings.environment(), "GATEWAY_URL": gateway.url})).feed()
    gateway.run_due()
    suggested = re.search('type="search".*?placeholder="([^"]+)"', gateway.get("/media").text)
    assert suggested is not None
    for words in suggested[1].split(", "):
        assert "Nothing was found" not in gateway.get(f"/media?q={words}").text, words


def test_a_server_that_is_away_while_the_demo_looks_is_waited_for() -> None:
    """As a database that was killed is, until the stack has started it again."""
    url, task = "/storage/flat.webp", "/api/avatars/tasks/1"
    somebody = {"status": "completed", "firstname": "Ada", "lastname": "Li", "occupation": "baker", "bio": "Bakes."}
    about = {"image_prompt": "Ada", "cost_usd": "0.1", "standin": False, "base_image_url": None, "image_2_url": None}
    people = [{**somebody, **about, "image_1_url": "/1.webp"}] * 4
    webp = photos.jpeg("chelsea", width=30)
    done = {"status": "completed", "progress": {"percent": 100}, "waiting_for": None, "personas": people}
    looks: Counter[str] = Counter()

    def behave(handler: BaseHTTPRequestHandler, _: int) -> None:
        looks[handler.path] += 1
        if handler.path == "/api/upload/listing_image":
            reply(handler, json.dumps({"data": {"images": [{"url": server.url + url}] * 4}}).encode())
        elif handler.path == "/api/avatars/tasks":
            reply(handler, b'{"task_id": "1"}')
        elif handler.path == url and looks[url] <= 4:  # right after the upload
            reply(handler, b"original", Content_Type="image/jpeg")
        elif handler.path == "/1.webp":
            reply(handler, webp)
        elif looks[handler.path] <= 6:
            reply(handler, b'{"status": 503}', 503, Content_Type="image/webp")
        elif handler.path == url:
            reply(handler, webp, Content_Type="image/webp")
        else:
            reply(handler, json.dumps(done).encode())

    with serving(behave) as server:
        secrets = {
            "ADMIN_API_KEY": "key",
            "USER_JWT_SECRET": "secret" * 6,
            "OPENAI_BASE_URL": "https://api.openai.com/v1",
        }
        stack = Stack({"GATEWAY_URL": server.url, "DAGSTER_URL": server.url, **secrets})
        results = run(stack, scenarios(["avatars", "listings"]), lambda _: None)
    assert [(result.pipeline, result.ok, result.failures) for result in results] == [
        ("avatars", True, []),
        ("listings", True, []),
    ]
    assert looks[task] == 7


def test_the_runs_behind_what_arrived_may_end_before_the_stack_is_stopped() -> None:
    """Else they stand in the UI as failed when the stack is started to look at them."""
    under_way = [[{"runId": "a"}], [{"runId": "a"}], []]

    def behave(request: BaseHTTPRequestHandler, number: int) -> None:
        body = json.dumps({"data": {"runsOrError": {"results": under_way[number]}}}).encode()
        request.send_response(200)
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        request.wfile.write(body)

    with serving(behave) as dagster:
        stack = Stack({"DAGSTER_URL": dagster.url})
        let_runs_end(stack)
        assert dagster.paths == ["/graphql"] * 3
        assert b"STARTED" in dagster.requests[0][2]
    let_runs_end(stack)  # nobody answers any more, and nobody is waited for


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_demo_that_is_ended_from_outside_ends_the_stack_it_started(open_folder: Path, number: signal.Signals) -> None:
    data_dir = open_folder / "data"
    environ = clean_environment(GATEWAY_PORT="0", FLASK_PORT="0", DAGSTER_WEBSERVER_PORT="0")
    before = signal.signal(number, signal.SIG_DFL)  # under nohup these tests and their children ignore SIGHUP
    try:
        process = subprocess.Popen([*IMGPIPE, "demo", "--data", str(data_dir)], env=environ)
    finally:
        signal.signal(number, before)
    try:
        wait_for(lambda: stackfile.read(data_dir) is not None, "the stack", 120)
        process.send_signal(number)
        assert process.wait(120) == 1
        assert not stackfile.is_running(data_dir)
    finally:
        process.kill()
        process.wait()


def test_the_page_of_the_demo_holds_all_it_shows(tmp_path: Path) -> None:
    """It is opened from a disk, when nothing answers any more."""
    large = scenario.picture(photos.large(1), "in")
    refused = [scenario.Refusal("the pictures of <b>Ada</b>", "content policy", failed=True)]
    exhibits = [
        scenario.Exhibit("wall.jpg", [large], {"Style": "Realist"}),
        scenario.Exhibit("A report", document="<!doctype html><h1>Report</h1>"),
    ]
    results = [Result("media", 2, 1, 3.5, refused=refused, exhibits=exhibits, finished=True)]
    page = report.write(tmp_path / "demo", results, {"media": Decimal("0.0421")})
    shown = page.read_text()
    assert "in, 3000 x 2000, " in shown
    assert "$0.0421" in shown
    assert "the pictures of &lt;b&gt;Ada&lt;/b&gt;. Reason: content policy." in shown
    assert not re.findall(r'(?:src|href)="(?!data:)', shown), "everything is in the file"
    assert len(shown) < 300_000
    assert results[0].failed == 1
    assert not results[0].failures


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_on_a_terminal_the_stack_stays_up_until_ctrl_c(open_folder: Path) -> None:
    data_dir = open_folder / "data"
    environ = clean_environment(GATEWAY_PORT="0", FLASK_PORT="0", DAGSTER_WEBSERVER_PORT="0", TERM="xterm")
    ours, theirs = pty.openpty()
    command = [*IMGPIPE, "demo", "--data", str(data_dir), "--only", "listings"]
    process = subprocess.Popen(command, env=environ, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True)
    os.close(theirs)
    said = b""
    try:
        while b"Ctrl-C stops it." not in said:
            ready, _, _ = select.select([ours], [], [], 180)
            assert ready, said.decode()
            said += os.read(ours, 65536)
        stack = stackfile.read(data_dir)
        assert stack is not None
        gateway = stack.environment["GATEWAY_URL"]
        assert f"{gateway}/media".encode() in said
        assert requests.get(f"{gateway}/health", timeout=30).ok
        assert (data_dir / "demo" / "index.html").as_uri().encode() in said
        assert "cat.jpg" in (data_dir / "demo" / "index.html").read_text()
        process.send_signal(signal.SIGINT)
        deadline = time.monotonic() + 120
        while process.poll() is None and time.monotonic() < deadline:
            if select.select([ours], [], [], 0.2)[0]:
                with contextlib.suppress(OSError):  # the other end is closed
                    os.read(ours, 65536)
        assert process.returncode == 0
        assert not stackfile.is_running(data_dir)
    finally:
        process.kill()
        process.wait()
        os.close(ours)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_everything_arrives_and_the_kept_stack_mends_itself(open_folder: Path) -> None:
    data_dir = open_folder / "data"
    first = demo(data_dir, "--only", "media", "--keep")
    assert first.returncode == 0, first.stdout + first.stderr
    results = json.loads(first.stdout)
    assert [(result["pipeline"], result["ok"], result["arrived"]) for result in results] == [("media", True, 7)]
    try:
        assert requests.get(results[0]["links"][0], timeout=10).headers["Content-Type"].startswith("image/")
        for name in ("code-server", "dagster-daemon", "dagster-webserver"):
            os.kill(int(str(part(data_dir, name)["pid"])), signal.SIGKILL)
        for name in ("code-server", "dagster-daemon", "dagster-webserver"):
            wait_for(lambda name=name: part(data_dir, name)["restarts"] == 1, f"{name} to be started again")
        again = demo(data_dir, "--only", "media")
        assert again.returncode == 0, again.stdout + again.stderr
        assert "using the stack that runs" in again.stderr
        assert stackfile.is_running(data_dir), "a stack that ran before the demo runs after it"
    finally:
        assert imgpipe("down", "--data", str(data_dir)).returncode == 0


def test_an_unknown_pipeline_is_refused_before_anything_starts(tmp_path: Path) -> None:
    refused = imgpipe("demo", "--data", str(tmp_path / "data"), "--only", "listings", "--only", "medai")
    assert refused.returncode == 2
    assert "media" in refused.stderr
    assert not (tmp_path / "data").exists()
