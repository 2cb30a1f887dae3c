"""`deploy/nginx/imgpipe.conf` in a real nginx, before two servers that are stopped and started one after the other."""

import os
import re
import shutil
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
import requests

from imgpipe_orchestration.devstack.ports import LOOPBACK, free_port
from imgpipe_orchestration.gateway.__main__ import KEEP_ALIVE_SECONDS
from imgpipe_orchestration.settings import Settings
from imgpipe_orchestration_tests.gateway.live import live
from imgpipe_orchestration_tests.gateway.test_hostile_requests import head
from imgpipe_orchestration_tests.gateway.test_limits import produced
from imgpipe_orchestration_tests.lacking import lacking
from imgpipe_orchestration_tests.partners.wire import reply, serving
from imgpipe_orchestration_tests.parts import Program, running

CONF = (Path(__file__).parents[1] / "deploy" / "nginx" / "imgpipe.conf").read_text()


def counting(handler: BaseHTTPRequestHandler, _: int) -> None:
    """Answers with the size of what it was sent, and with what the proxy said of the client, then hangs up."""
    sent: bytes = handler.sent  # type: ignore[attr-defined]  # by `serving`
    told = f"{len(sent)} {handler.headers['x-forwarded-proto']} {handler.headers['host']}"
    reply(handler, told.encode(), Connection="close")


GATEWAYS = ("10.0.0.11:8000", "10.0.0.12:8000")
DAGSTER, READ_ONLY = "10.0.0.21:3000", "10.0.0.21:3001"


@contextmanager
def proxy(folder: Path, certificate: Path, addresses: dict[str, int]) -> Iterator[str]:
    """nginx with our configuration: its URL.

    Args:
        addresses: the ports on loopback that take the place of the configuration's addresses.
    """
    nginx = shutil.which("nginx", path="/usr/sbin:/usr/bin:/usr/local/bin")
    if nginx is None:
        lacking("nginx", "make test-servers")
    own = free_port()
    ours = {
        **{theirs: f"{LOOPBACK}:{port}" for theirs, port in addresses.items()},
        "listen 443": f"listen {LOOPBACK}:{own}",
        "/etc/nginx/images.example.com.crt": str(certificate),
        "/etc/nginx/images.example.com.key": str(certificate),
    }
    written = CONF
    for theirs, our in ours.items():
        assert theirs in written
        written = written.replace(theirs, our)
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    temporary = "".join(f"{kind}_temp_path {folder / kind};\n" for kind in kinds)
    user = "user root; " if os.geteuid() == 0 else ""  # else its workers become somebody who may not enter our folder
    (folder / "nginx.conf").write_text(
        f"{user}daemon off; pid {folder}/pid; error_log {folder}/error.log; events {{}}\n"
        f"http {{ access_log off;\n{temporary}{written}\n}}\n"
    )
    with running(Program(folder, own, nginx, "-e", folder / "error.log", "-c", folder / "nginx.conf")):
        yield f"https://localhost:{own}"


@pytest.fixture
def site(tmp_path: Path, certificate: Path) -> Iterator[tuple[str, int, int]]:
    """nginx's URL, and the ports of the two gateways behind it."""
    one, two = free_port(), free_port()
    with proxy(tmp_path, certificate, dict(zip(GATEWAYS, (one, two), strict=True))) as url:
        yield url, one, two


def test_every_request_is_answered_while_gateways_are_started_anew_one_after_the_other(
    site: tuple[str, int, int], certificate: Path
) -> None:
    url, one, two = site
    with requests.Session() as client:
        client.trust_env = False
        client.verify = str(certificate)

        def uploads(size: int = 1000) -> set[tuple[int, str]]:
            answers = [client.post(f"{url}/users/me", data=b"x" * size, timeout=20) for _ in range(8)]
            return {(answer.status_code, answer.text) for answer in answers}

        fine = {(200, f"1000 https {url.removeprefix('https://')}")}
        with serving(counting, port=one):
            with serving(counting, port=two):
                assert uploads() == fine
                (big,) = uploads(3_000_000)
                assert big[0] == 200, "a photograph is more than a megabyte"
            assert uploads() == fine, "the second is away"
        with serving(counting, port=two):
            assert uploads() == fine, "it is back, and the first is away"
            with serving(counting, port=one):
                assert uploads() == fine


def test_a_strangers_body_is_refused_by_a_gateway_before_it_is_sent(
    settings: Settings, tmp_path: Path, certificate: Path
) -> None:
    with live(produced(settings)) as gateway:
        addresses = dict.fromkeys(GATEWAYS, int(gateway.rpartition(":")[2]))
        with proxy(tmp_path, certificate, addresses) as url:
            for said in (f"Content-Length: {10 * 1024**3}", "Transfer-Encoding: chunked"):
                client = ssl.create_default_context(cafile=certificate)
                plain = socket.create_connection((LOOPBACK, int(url.rpartition(":")[2])), timeout=10)
                with client.wrap_socket(plain, server_hostname="localhost") as connection:
                    connection.sendall(head("POST", "/api/upload/listing_image", said))
                    assert connection.recv(65536).startswith(b"HTTP/1.1 401 "), said


def test_connections_that_rest_are_closed_by_the_proxy_first() -> None:
    (seconds,) = re.findall(r"^\s+keepalive_timeout (\d+)s;", CONF, re.MULTILINE)
    assert int(seconds) < KEEP_ALIVE_SECONDS
