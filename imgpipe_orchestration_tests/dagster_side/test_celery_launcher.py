"""Whether broker and store of reports are the machines that their certificates name."""

import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from celery import Celery

from imgpipe_orchestration.dagster_side.celery_launcher import over_tls
from imgpipe_orchestration_tests.partners.wire import tls_server


def _broker(scheme: str) -> Callable[[str], Any]:
    def connect(address: str) -> Any:
        url = f"{scheme}://guest:guest@{address}//"
        with Celery(broker=url, config_source=over_tls(url)) as app:
            return app.connection_for_write().ensure_connection(max_retries=1, interval_start=0, interval_step=0)

    return connect


def _store(address: str) -> Any:
    url = f"rediss://{address}/0"
    once = {"result_backend_transport_options": {"retry_policy": {"timeout": 0.1}}}
    with Celery(backend=url, config_source={**over_tls(None, url), **once}) as app:
        return app.backend.get_task_meta("a run")


WAYS = {"amqps broker": _broker("amqps"), "rediss broker": _broker("rediss"), "rediss store": _store}


@contextmanager
def listening(certificate: Path) -> Iterator[tuple[int, list[bytes]]]:
    """A server that shows the certificate and hangs up at the first word; its port, and the words that it got."""
    heard: list[bytes] = []
    server = socket.create_server(("127.0.0.1", 0))
    tls = tls_server(certificate)

    def listen() -> None:
        while True:
            try:
                client, _ = server.accept()
            except OSError:
                return  # the test is over
            try:
                with client, tls.wrap_socket(client, server_side=True) as inside:
                    heard.append(inside.recv(100))
            except (ssl.SSLError, ConnectionError):
                heard.append(b"")

    thread = threading.Thread(target=listen)
    thread.start()
    yield server.getsockname()[1], heard
    server.shutdown(socket.SHUT_RDWR)
    server.close()
    thread.join()


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("host", "is_known", "is_told"), [
    ("localhost", True, True),
    ("127.0.0.1", True, False),
    ("localhost", False, False),
])  # fmt: skip
def test_a_server_is_told_our_password_only_if_its_certificate_is_right(
    way: str, host: str, is_known: bool, is_told: bool, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if is_known:
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    with (
        listening(certificate) as (port, heard),
        pytest.raises(Exception, match=r"(?i)closed|broken|reset|EOF|read" if is_told else "CERTIFICATE_VERIFY_FAILED"),
    ):
        WAYS[way](f"{host}:{port}")
    assert heard and any(heard) is is_told
