"""`imgpipe demo` with the whole stack: HTTP, sensors, daemon and runs."""

import contextlib
import os
import pty
import re
import select
import signal
import subprocess
import time
from pathlib import Path

import pytest
import requests

from imgpipe_orchestration.devstack import stackfile
from imgpipe_orchestration.devstack.demo import media, report
from imgpipe_orchestration.devstack.demo.runner import run
from imgpipe_orchestration.devstack.demo.scenario import Exhibit, Result, Stack
from imgpipe_orchestration.devstack.demo.vision_reports import vision_reports
from imgpipe_orchestration_tests.conftest import StandInAccess
from imgpipe_orchestration_tests.devstack.running import IMGPIPE, clean_environment, imgpipe, wait_for
from imgpipe_orchestration_tests.media.conftest import Gateway, gateway, make_gateway, picture, seeing_gateway
from imgpipe_orchestration_tests.photos import large

__all__ = ["gateway", "make_gateway", "seeing_gateway"]


def test_a_real_external_api_is_left_alone_and_the_table_says_so() -> None:
    stack = Stack({"EXTERNAL_API_GET_URL": "https://api.example.com/api/v1/documents/vision_analysis"})
    (result,) = run(stack, ["vision_reports"], lambda _: None)
    assert not result.ok
    assert "EXTERNAL_API_GET_URL names a real API" in result.failures[0]


def test_demos_on_one_folder_share_the_cron_jobs_of_the_first(gateway: Gateway, standins: StandInAccess) -> None:
    """Each runs every hour from then on."""
    listing = standins.analyses_url
    addresses = {"EXTERNAL_API_GET_URL": listing, "EXTERNAL_API_POST_URL": f"{listing}/upload"}
    environ = {**gateway.settings.environment(), **addresses, "GATEWAY_URL": gateway.url, "EXTERNAL_API_KEY": "a-token"}
    for backend in ("http://127.0.0.1:8000", gateway.url):
        next(vision_reports(Stack({**environ, "BACKEND_API_URL": backend}), Result("vision_reports")))
    jobs = gateway.get("/cron-jobs").json()["jobs"]
    assert [(job["name"].partition(":")[0], job["backend_api_url"]) for job in jobs] == [
        ("LexCorp", gateway.url),
        ("Oceanix", gateway.url),
    ]


def test_the_page_says_what_a_photograph_shows_and_who_says_so(seeing_gateway: Gateway) -> None:
    seeing_gateway.finish(product_image=picture())
    stack = Stack({**seeing_gateway.settings.environment(), "GATEWAY_URL": seeing_gateway.url})
    facts = media._exhibit(stack, f"{seeing_gateway.url}/api/images/1", "photograph.jpg", b"").facts
    assert facts["Subject"]
    assert "stand-ins" in facts["Said by"]


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.parametrize(("number", "while_it_starts"), [(signal.SIGTERM, True), (signal.SIGHUP, False)])
def test_a_demo_that_is_ended_from_outside_ends_the_stack_it_started(
    open_folder: Path, number: signal.Signals, while_it_starts: bool
) -> None:
    data_dir = open_folder / "data"
    environ = clean_environment(GATEWAY_PORT="0", FLASK_PORT="0", DAGSTER_WEBSERVER_PORT="0")
    before = signal.signal(number, signal.SIG_DFL)  # under nohup these tests and their children ignore SIGHUP
    try:
        process = subprocess.Popen([*IMGPIPE, "demo", "--data", str(data_dir)], env=environ)
    finally:
        signal.signal(number, before)
    try:
        first = data_dir / "logs" / "postgres.log"
        wait_for(lambda: first.exists() if while_it_starts else stackfile.read(data_dir), "the stack")
        process.send_signal(number)
        assert process.wait(120) == 1
        assert not stackfile.is_running(data_dir)
    finally:
        process.kill()
        process.wait()


def test_the_page_of_the_demo_holds_all_it_shows(tmp_path: Path) -> None:
    """It is opened from a disk, when nothing answers any more."""
    refused = {"the pictures of <b>Ada</b>": "content policy"}
    exhibits = [
        Exhibit("wall.jpg", {"in": large(1)}, {"Style": "Realist"}),
        Exhibit("A report", document="<!doctype html><h1>Report</h1>"),
    ]
    results = [Result("media", 2, 1, 3.5, refused=refused, failed_on_purpose=1, exhibits=exhibits, finished=True)]
    page = report.write(tmp_path / "demo", results, {"media": 0.0421})
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


def test_an_unknown_pipeline_is_refused_before_anything_starts(tmp_path: Path) -> None:
    refused = imgpipe("demo", "--data", str(tmp_path / "data"), "--only", "listings", "--only", "medai")
    assert refused.returncode == 2
    assert "media" in refused.stderr
    assert not (tmp_path / "data").exists()
