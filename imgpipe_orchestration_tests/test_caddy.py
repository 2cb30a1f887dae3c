"""`deploy/caddy/Caddyfile` in a real Caddy: Dagster's UI asks who it is, and viewers get one that changes nothing."""

import sysconfig
from collections.abc import Iterator
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
import requests

from imgpipe_orchestration.devstack.ports import LOOPBACK, free_port
from imgpipe_orchestration_tests.partners.wire import Behaviour, reply, serving
from imgpipe_orchestration_tests.parts import Program, running

pytestmark = pytest.mark.slow

CADDYFILE = (Path(__file__).parents[1] / "deploy" / "caddy" / "Caddyfile").read_text()
SIGN_IN = "https://images.example/login?next=%2Fdagster"


def named(name: str) -> Behaviour:
    """Says its name and the role that it was told; as the gateway it also knows who `role=...` is."""

    def answer(handler: BaseHTTPRequestHandler, _: int) -> None:
        role = (handler.headers["Cookie"] or "").partition("role=")[2]
        if name == "gateway" and handler.path.startswith("/auth/verify"):
            told = {"X_Imgpipe_Role": role} if role else {"X_Imgpipe_Sign_In": SIGN_IN}
            reply(handler, status=204 if role else 401, **told)
        else:
            reply(handler, f"{name} {handler.path} {handler.headers['X-Imgpipe-Role']}".encode())

    return answer


@pytest.fixture
def caddy(tmp_path: Path) -> Iterator[str]:
    found = Path(sysconfig.get_path("scripts")) / "caddy"
    own, objects = free_port(), free_port()
    with ExitStack() as stack:
        written = CADDYFILE.replace("\n:8000 {", f"\nhttp://{LOOPBACK}:{own} {{")
        written = written.replace("\n:9000 {", f"\nhttp://{LOOPBACK}:{objects} {{")
        for theirs in ("gateway:8000", "webserver-read-only:3000", "webserver:3000"):
            assert theirs in written
            port = stack.enter_context(serving(named(theirs.partition(":")[0]))).port
            written = written.replace(theirs, f"{LOOPBACK}:{port}")
        conf = tmp_path / "Caddyfile"
        conf.write_text(written.replace("auto_https off", "auto_https off\n\tadmin off"))
        home = {"HOME": str(tmp_path), "XDG_DATA_HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path)}
        words = (found, "run", "--config", conf, "--adapter", "caddyfile")
        stack.enter_context(running(Program(tmp_path, own, *words, **home)))
        yield f"http://{LOOPBACK}:{own}"


def ask(caddy: str, path: str, role: str = "", **headers: str) -> requests.Response:
    cookie = {"Cookie": f"role={role}"} if role else {}
    return requests.get(caddy + path, headers={**cookie, **headers}, allow_redirects=False, timeout=30)


def test_dagsters_ui_asks_who_it_is_and_gives_viewers_the_webserver_that_changes_nothing(caddy: str) -> None:
    stranger = ask(caddy, "/dagster/runs")
    assert (stranger.status_code, stranger.headers["Location"]) == (302, SIGN_IN)
    assert ask(caddy, "/dagster/runs", "viewer").text == "webserver-read-only /dagster/runs viewer"
    assert ask(caddy, "/dagster/runs", "operator").text == "webserver /dagster/runs operator"
    assert ask(caddy, "/serve/1").text == "gateway /serve/1 None"


def test_a_role_that_a_client_writes_itself_is_not_believed(caddy: str) -> None:
    claimed = {"X-Imgpipe-Role": "admin"}
    assert ask(caddy, "/dagster/graphql", **claimed).status_code == 302
    assert ask(caddy, "/dagster/graphql", "viewer", **claimed).text == "webserver-read-only /dagster/graphql viewer"
