"""Dagster's UI behind nginx, as deploy/nginx/imgpipe.conf sets it up: real webservers, one of which changes nothing."""

import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
import requests

from imgpipe_orchestration.devstack.ports import free_port
from imgpipe_orchestration.gateway import session
from imgpipe_orchestration.identity.model import Role
from imgpipe_orchestration_tests.gateway.test_limits import KEYS
from imgpipe_orchestration_tests.media.conftest import Gateway
from imgpipe_orchestration_tests.parts import Program, running
from imgpipe_orchestration_tests.test_nginx import DAGSTER, GATEWAYS, READ_ONLY, proxy

pytestmark = pytest.mark.slow

ALLOWED = {"query": "{ permissions { permission value } }"}


@contextmanager
def webserver(folder: Path, *options: str) -> Iterator[int]:
    """A webserver of Dagster without any code location; its port."""
    port = free_port()
    home = Path(tempfile.mkdtemp(dir=folder))
    (home / "dagster.yaml").write_text("telemetry: { enabled: false }\n")
    (home / "workspace.yaml").write_text("load_from: []\n")
    words = [sys.executable, "-m", "dagster_webserver", "-w", str(home / "workspace.yaml")]
    words += ["-h", "127.0.0.1", "-p", str(port), "--path-prefix", "/dagster", *options]
    with running(Program(home, port, *words, DAGSTER_HOME=str(home))):
        yield port


def test_viewers_look_operators_launch_and_strangers_are_sent_to_sign_in(
    make_gateway: Callable[..., Gateway], tmp_path: Path, certificate: Path
) -> None:
    gateway = make_gateway(imgpipe_env="production", **KEYS)
    port = int(gateway.url.rpartition(":")[2])
    with ExitStack() as stack:
        full = stack.enter_context(webserver(tmp_path))
        read_only = stack.enter_context(webserver(tmp_path, "--read-only"))
        addresses = dict.fromkeys(GATEWAYS, port) | {DAGSTER: full, READ_ONLY: read_only}
        url = stack.enter_context(proxy(tmp_path, certificate, addresses))

        def ask(cookies: dict[str, str] | None) -> requests.Response:
            return requests.post(
                f"{url}/dagster/graphql",
                json=ALLOWED,
                cookies=cookies,
                verify=str(certificate),
                allow_redirects=False,
                timeout=60,
            )

        stranger = ask(None)
        assert stranger.status_code == 302
        assert stranger.headers["Location"] == f"{gateway.url}/login?next=%2Fdagster%2Fgraphql"
        assert ask({session.COOKIE: "forged"}).status_code == 302
        may = {role: permissions(ask(signed_in(gateway, role))) for role in Role}
    assert not any(may[Role.VIEWER].values())
    assert may[Role.OPERATOR]["launch_pipeline_execution"]
    assert may[Role.OPERATOR] == may[Role.ADMIN]


def signed_in(gateway: Gateway, role: Role) -> dict[str, str]:
    return {session.COOKIE: session.cookie_of(gateway.settings, role.value, role)}


def permissions(answer: requests.Response) -> dict[str, bool]:
    assert answer.status_code == 200, answer.text
    told: list[dict[str, Any]] = answer.json()["data"]["permissions"]
    return {one["permission"]: one["value"] for one in told}
