"""News of changed images: to gateways in processes of their own, and over a connection that dies without a word."""

from __future__ import annotations

import hashlib
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager

import pytest
import requests
from sqlalchemy.engine import make_url

from imgpipe_orchestration.devstack.ports import free_port
from imgpipe_orchestration.settings import Settings
from imgpipe_orchestration_tests.devstack.running import wait_for
from imgpipe_orchestration_tests.media.conftest import Gateway, picture

pytestmark = pytest.mark.slow

PATH = "/serve/1?size=grid&format=jpeg"


@contextmanager
def gateway_process(settings: Settings) -> Iterator[str]:
    """A gateway as `imgpipe up` starts it."""
    port = str(free_port())
    environ = {**os.environ, **settings.environment(), "GATEWAY_PORT": port, "FLASK_PORT": port}
    process = subprocess.Popen([sys.executable, "-m", "imgpipe_orchestration.gateway"], env=environ)
    try:
        with socket.socket() as probe:
            wait_for(lambda: probe.connect_ex(("127.0.0.1", int(port))) == 0, "the gateway", 60)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(30)


def made_again(gateway: Gateway, data: bytes) -> None:
    """As a worker does it: the new object, the new manifest, then the old object goes."""
    sha256 = hashlib.sha256(data).hexdigest()
    key = f"library/user_1/product/img/1-grid-{sha256[:12]}.jpg"
    bucket = gateway.services.media_bucket
    bucket.put(key, data, content_type="image/jpeg")
    where = "media_id = 1 and size = 'grid' and format = 'jpeg'"
    old = gateway.rows(f"select object_key from media_variants where {where}")[0][0]
    gateway.rows(
        f"update media_variants set sha256 = :sha256, bytes = :bytes, object_key = :key where {where} returning 1",
        sha256=sha256,
        bytes=len(data),
        key=key,
    )
    bucket.delete(old)


@pytest.mark.timeout(240)
def test_an_image_made_again_is_served_without_a_gap_and_never_old_by_every_process(gateway: Gateway) -> None:
    gateway.upload(1, product_image=picture(640, 640))
    gateway.run_due()
    wrong: list[str] = []
    stop = threading.Event()

    def ask(url: str) -> None:
        with requests.Session() as session:
            while not stop.is_set():
                answer = session.get(url + PATH, timeout=30)
                etag = f'"{hashlib.sha256(answer.content).hexdigest()[:32]}"'
                if answer.status_code != 200 or answer.headers["etag"] != etag:
                    wrong.append(f"{answer.status_code} {answer.text[:200]}")

    with ExitStack() as stack:
        urls = [stack.enter_context(gateway_process(gateway.settings)) for _ in range(2)]
        pool = stack.enter_context(ThreadPoolExecutor(4))
        asking = [pool.submit(ask, url) for url in (*urls, *urls)]
        try:
            for seed in range(25):
                data = picture(500, 500, seed=seed)
                made_again(gateway, data)
                for url in urls:
                    new = lambda url=url, data=data: requests.get(url + PATH, timeout=30).content == data  # noqa: E731
                    wait_for(new, "the new picture", 5)
        finally:
            stop.set()
        for one in asking:
            one.result()
    assert wrong == []


class Proxy:
    """A way to PostgreSQL on which connections can go silent that said certain words: open, and nothing passes."""

    def __init__(self, target: tuple[str, int], words: bytes) -> None:
        self._words = words
        self.port = free_port()
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", self.port))
        self._silent: list[threading.Event] = []
        self._open: list[socket.socket] = []
        self._accepting = threading.Thread(target=self._accept, daemon=True)
        self._accepting.start()

    def silence(self) -> int:
        """Nothing passes over the connections that have said it by now; returns how many."""
        for event in self._silent:
            event.set()
        return len(self._silent)

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)  # ends the wait in `accept`, which `close` does not
        self._accepting.join()
        for one in (self._listener, *self._open):
            one.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.create_connection(self._target)
            self._open += [client, server]
            silent = threading.Event()
            for source, sink in ((client, server), (server, client)):
                threading.Thread(target=self._pass, args=(source, sink, silent), daemon=True).start()

    def _pass(self, source: socket.socket, sink: socket.socket, silent: threading.Event) -> None:
        try:
            while data := source.recv(65536):
                if self._words in data:
                    self._silent.append(silent)
                if not silent.is_set():
                    sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)
        except OSError:
            return


@contextmanager
def gateway_by_proxy(
    gateway: Gateway, make_gateway: Callable[..., Gateway], words: bytes
) -> Iterator[tuple[Gateway, Proxy]]:
    """Another gateway, whose way to the database leads over a proxy."""
    url = make_url(gateway.settings.database_url)
    proxy = Proxy((url.host or "127.0.0.1", url.port or 5432), words)
    try:
        through = url.set(host="127.0.0.1", port=proxy.port).render_as_string(hide_password=False)
        yield make_gateway(database_url=through), proxy
    finally:
        proxy.close()


def changed(gateway: Gateway) -> None:
    with gateway.services.engine.begin() as connection:
        connection.exec_driver_sql("update media_variants set sha256 = 'f00d' || sha256 where media_id = 1")


def test_a_connection_that_died_silently_is_noticed(gateway: Gateway, make_gateway: Callable[..., Gateway]) -> None:
    gateway.upload(1, product_image=picture(640, 640))
    gateway.run_due()
    with gateway_by_proxy(gateway, make_gateway, b"listen media_changed") as (other, proxy):
        before = other.get(PATH).headers["etag"]
        wait_for(lambda: proxy.silence() > 0, "a connection that listens", 30)
        changed(gateway)
        wait_for(lambda: other.get(PATH).headers["etag"] != before, "the change", 30)


@pytest.mark.parametrize("end", ["silence", "terminate"])
def test_the_connection_that_reads_manifests_is_replaced(
    gateway: Gateway, make_gateway: Callable[..., Gateway], end: str
) -> None:
    gateway.upload(1, product_image=picture(640, 640))
    gateway.run_due()
    with gateway_by_proxy(gateway, make_gateway, b"left join media_variants") as (other, proxy):
        before = other.get(PATH).headers["etag"]
        if end == "silence":
            assert proxy.silence() == 1
        else:
            reading = "query like '%left join media_variants%' and pid <> pg_backend_pid()"
            assert gateway.rows(f"select pg_terminate_backend(pid) from pg_stat_activity where {reading}")
        changed(gateway)
        answers = []

        def shows_it() -> bool:
            answers.append(other.get(PATH))
            return answers[-1].headers.get("etag", before) != before

        wait_for(shows_it, "the change", 60)
        assert {answer.status_code for answer in answers} <= ({200, 503} if end == "silence" else {200})
