"""With MODERATION=hold nothing is shown before its verdict, also after kill -9 of a gateway."""

from __future__ import annotations

import contextlib
import itertools
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import requests

from imgpipe_orchestration.devstack.ports import free_port
from imgpipe_orchestration.kinds import subject_of
from imgpipe_orchestration.moderation import verdicts
from imgpipe_orchestration.storage.rows import transaction
from imgpipe_orchestration_tests.devstack.running import wait_for
from imgpipe_orchestration_tests.media.conftest import Gateway, picture
from imgpipe_orchestration_tests.moderation.conftest import Sent, environment, process, send

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

PUBLIC = "/storage/v1/object/public/listing-images"


@contextmanager
def gateway_process(like: Gateway, *, killed_at: int = 0) -> Iterator[tuple[Gateway, subprocess.Popen[bytes]]]:
    """A gateway of its own process with the settings of another one, which kills itself at that step."""
    port = free_port()
    command = [sys.executable, "-m", "imgpipe_orchestration_tests.moderation.gateway", str(killed_at)]
    started = subprocess.Popen(command, env={**environment(like), "GATEWAY_PORT": str(port)})
    gateway = Gateway(f"http://127.0.0.1:{port}", like.settings, like.services)

    def answers() -> bool:
        assert started.poll() is None
        with contextlib.suppress(requests.ConnectionError):
            return gateway.get("/health/live").ok
        return False

    try:
        wait_for(answers, "the gateway", 60)
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
