"""With MODERATION=hold nothing is shown before its verdict, also after kill -9 of a gateway or of the database."""

import contextlib
import itertools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest
import requests
from sqlalchemy import Engine, event

from imgpipe_orchestration.devstack.ports import free_port
from imgpipe_orchestration.devstack.postgres import Postgres
from imgpipe_orchestration.errors import BackendUnavailable
from imgpipe_orchestration.moderation import verdicts
from imgpipe_orchestration.operations import existing
from imgpipe_orchestration.operations.kinds import subject_of
from imgpipe_orchestration.storage.rows import transaction
from imgpipe_orchestration_tests.conftest import StandInAccess
from imgpipe_orchestration_tests.devstack.running import wait_for
from imgpipe_orchestration_tests.lifecycle.conftest import call
from imgpipe_orchestration_tests.media.conftest import Gateway, gateways, picture
from imgpipe_orchestration_tests.moderation.conftest import Sent, process, saying, send
from imgpipe_orchestration_tests.recovery.conftest import servers

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

PUBLIC = "/storage/v1/object/public/listing-images"


@contextmanager
def gateway_process(like: Gateway, *, killed_at: int = 0) -> Iterator[tuple[Gateway, subprocess.Popen[bytes]]]:
    """A gateway of its own process with the settings of another one, which kills itself at that step."""
    port = free_port()
    command = [sys.executable, "-m", "imgpipe_orchestration_tests.moderation.gateway", str(killed_at)]
    environment = {**os.environ, **like.settings.environment(), "GATEWAY_PORT": str(port)}
    started = subprocess.Popen(command, env=environment)
    gateway = Gateway(f"http://127.0.0.1:{port}", like.settings, like.services)

    def answers() -> bool:
        assert started.poll() is None
        with contextlib.suppress(requests.ConnectionError):
            return gateway.get("/health/live").ok
        return False

    try:
        wait_for(answers, "the gateway", 120)
        yield gateway, started
    finally:
        started.kill()
        started.wait()


def readable(gateway: Gateway) -> dict[str, int]:
    """The status of each object and each listing at its public address, but for those that nobody gets."""
    paths = [f"/{one.key}" for one in gateway.services.media_bucket.list()]
    paths += [f"{PUBLIC}/{row.file_name}" for row in gateway.rows("select file_name from image_queue")]
    found = {path: gateway.get(path).status_code for path in paths}
    return {path: status for path, status in found.items() if status not in {403, 404}}


def test_a_gateway_killed_at_any_step_of_an_upload_shows_nothing_and_leaves_no_row_without_its_file(
    holding: Gateway,
) -> None:
    """Its client gets no answer, and sends the same again until there is one."""
    sent = None
    for step in itertools.count(1):
        with gateway_process(holding, killed_at=step) as (gateway, started):
            with contextlib.suppress(requests.ConnectionError):
                sent = send(gateway, picture(seed=1))
            assert sent is not None or started.wait(20) == -signal.SIGKILL
        assert readable(holding) == {}, f"after a kill at step {step}"
        if sent is not None:
            break
    assert step > 4
    assert len(list(holding.services.media_bucket.list())) > 1, "killed after it stored a file"
    assert len(holding.rows("select id from pending_images")) > 1, "killed before its answer"
    with gateway_process(holding) as (gateway, _):
        assert readable(gateway) == {}
        process(holding)
        assert {row.status for row in holding.rows("select status from pending_images")} == {"complete"}
        assert {row.status for row in holding.rows("select status from image_queue")} == {"processed"}
        assert len(Sent(gateway, sent.pending_id, sent.temp, sent.listing).shown()) > 4


def test_a_gateway_that_dies_while_a_verdict_falls_does_not_show_the_image_again(holding: Gateway) -> None:
    sent = send(holding, picture(seed=2))
    process(holding)
    path = f"/serve/{sent.media_id}"
    with gateway_process(holding) as (gateway, started):
        tag = [wait_for(lambda: gateway.get(path), "the image") for _ in range(2)][1].headers["etag"]
        assert gateway.get(path, **{"If-None-Match": tag}).status_code == 304
        started.send_signal(signal.SIGSTOP)  # so that it hears nothing of the verdict
        with transaction(holding.services.engine) as connection:
            verdicts.hold(holding.services, connection, subject_of("media"), sent.media_id, held=True)
    with gateway_process(holding) as (gateway, _):
        assert [gateway.get(path).status_code, gateway.get(path, **{"If-None-Match": tag}).status_code] == [403, 403]


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGSTOP])
def test_without_a_database_nothing_is_shown_that_may_have_been_deleted_or_held_in_any_mode(
    open_folder: Path, standins: StandInAccess, end: signal.Signals
) -> None:
    """A hot image for at most the six seconds that a deletion may take. A listing is hot nowhere."""
    with servers(open_folder) as (server, _, settings), gateways(settings) as make:
        modes = [make(**standins.seeing, moderation=mode) for mode in ("hold", "flag", "off")]
        sent = send(modes[0], picture(seed=5))
        process(modes[0])
        path, process_of = f"/serve/{sent.media_id}?format=jpeg", psutil.Process(server.pid)
        for gateway in modes:
            hot = wait_for(lambda asked=gateway: shown(asked, path), "the image", 20)
            assert gateway.get(sent.listing).headers["cache-control"].startswith("public")
        all_of_it = [process_of, *process_of.children()]
        for one in all_of_it:
            one.send_signal(end)
        cut = time.monotonic()
        try:
            with ThreadPoolExecutor(6) as pool:
                if end is signal.SIGKILL:  # it hangs for a minute otherwise, as every request for rows does
                    listed = list(pool.map(lambda one: one.get(sent.listing), modes))
                    assert {answer.headers["content-type"] for answer in listed} == {"image/webp"}
                    assert {answer.content for answer in listed}.isdisjoint({hot})
                    assert all(withheld(answer) for answer in listed)
                for gateway in modes:
                    while (asked := time.monotonic()) and shown(gateway, path):
                        assert asked - cut < 6, gateway.settings.moderation
                    assert withheld(answer := gateway.get(path)), answer.status_code
                    assert answer.headers["content-type"] == "image/svg+xml"
        finally:
            for one in all_of_it:
                with contextlib.suppress(psutil.NoSuchProcess):
                    one.send_signal(signal.SIGCONT)


def shown(gateway: Gateway, path: str) -> bytes | None:
    answer = gateway.get(path)
    return answer.content if answer.status_code == 200 else None


def withheld(answer: requests.Response) -> bool:
    """Whether an answer says to come again, and nobody keeps it."""
    again = int(answer.headers.get("retry-after", 0))
    return (answer.status_code, answer.headers["cache-control"]) == (503, "no-store") and again > 0


@contextmanager
def killed_at(server: Postgres, last: int) -> Iterator[None]:
    """Kill the database before the `last`-th commit, of whomever."""
    steps = itertools.count(1)

    def step(*_: object) -> None:
        if next(steps) == last and server.pid is not None:
            os.kill(server.pid, signal.SIGKILL)

    event.listen(Engine, "commit", step)
    try:
        yield
    finally:
        event.remove(Engine, "commit", step)


def test_a_database_killed_at_any_commit_of_a_verdict_or_a_decision_shows_nothing_before_it(
    open_folder: Path, standins: StandInAccess
) -> None:
    with servers(open_folder) as (server, _, settings), gateways(settings) as make:
        gateway = make(**standins.seeing, moderation="hold", partner_timeout_seconds=30)
        services = gateway.services
        standins.fault("openai", "server_error", operation="moderations", count=None, status=503)
        clear, doubtful = send(gateway, picture(seed=3)), send(gateway, saying("sexual=0.91", seed=4))
        process(gateway)
        standins.admin("DELETE", "faults")
        services.ledger.resume()

        def again() -> None:
            server.start()
            server.wait_until_ready()

        def give_back(step: int) -> None:
            """Give back what a run that died had claimed."""

            def back() -> bool:
                with contextlib.suppress(BackendUnavailable):
                    services.claims.release(f"killed-{step}")
                    services.claims.hasten(existing.JUDGE)
                    return True
                return False

            wait_for(back, "the database", 20)

        def state(sent: Sent) -> Any:
            query = "select v.state, f.held from verdicts v join media_files f on f.id = v.item"
            (row,) = gateway.rows(f"{query} where v.kind = 'media' and v.item = :id", id=sent.media_id)
            assert row.held == (row.state not in {"clear", "approved"}), "half a verdict"
            return row.state

        def ended(acting: Future[Any]) -> bool:
            return acting.done() or server.exit_code() is not None

        def kills(sent: Sent, act: Any, final: str) -> int:
            """Do something to its end, with the database killed at its first commit, then at its second ..."""
            paths = sent.paths()
            for step in itertools.count(1):
                with killed_at(server, step), ThreadPoolExecutor(1) as beside:
                    # beside, because what was paid for waits until it can be written down
                    acting = beside.submit(act, step)
                    wait_for(partial(ended, acting), "the end of either", 60)
                    if not (killed := server.exit_code() is not None):
                        acting.result()
                    else:
                        away = {path: gateway.get(path).status_code for path in paths}
                        assert not {200, 304} & set(away.values()), f"shown while the database is away: {away}"
                        again()
                        wait([acting])
                if not killed:
                    assert state(sent) == final
                    wait_for(lambda: len(sent.shown()) > 4, "the image that is clear", 20)
                    return step
                give_back(step)
                if state(sent) != final:
                    # The listing of the same bytes has a verdict of its own.
                    own = [path for path in paths if path != sent.listing]
                    assert not {200, 304} & {gateway.get(path).status_code for path in own}
            raise AssertionError

        def approve(_: int) -> None:
            body = {"decision": "approve", "reason": "A statue"}
            call(gateway, "POST", f"/api/moderation/{doubtful.media_id}", json=body)

        assert kills(clear, lambda step: existing.run(services, f"killed-{step}"), "clear") > 2
        assert state(doubtful) == "held"
        assert kills(doubtful, approve, "approved") > 1
