"""News of changed images: to gateways in processes of their own, and over a connection that dies without a word."""

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
from imgpipe_orchestration_tests.cable import Cable
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


@pytest.mark.timeout(600)
def test_an_image_made_again_is_served_without_a_gap_and_never_old_by_every_process(gateway: Gateway) -> None:
    gateway.finish(1, product_image=picture(640, 640))
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
                    wait_for(new, "the new picture", 30)
        finally:
            stop.set()
        for one in asking:
            one.result()
    assert wrong == []


@contextmanager
def gateway_by_cable(
    gateway: Gateway, make_gateway: Callable[..., Gateway], words: bytes
) -> Iterator[tuple[Gateway, Cable]]:
    """Another gateway, whose connections to the database that said certain words can be silenced."""
    url = make_url(gateway.settings.database_url)
    with Cable(url.port or 5432, lambda data: words in data) as cable:
        through = url.set(host="127.0.0.1", port=cable.port).render_as_string(hide_password=False)
        yield make_gateway(database_url=through), cable


def changed(gateway: Gateway) -> None:
    gateway.rows("update media_variants set sha256 = 'f00d' || sha256 where media_id = 1")


def test_a_connection_that_died_silently_is_noticed(gateway: Gateway, make_gateway: Callable[..., Gateway]) -> None:
    gateway.finish(1, product_image=picture(640, 640))
    with gateway_by_cable(gateway, make_gateway, b"listen media_changed") as (other, cable):
        before = other.get(PATH).headers["etag"]
        wait_for(lambda: cable.silence() > 0, "a connection that listens", 30)
        changed(gateway)
        wait_for(lambda: other.get(PATH).headers["etag"] != before, "the change", 30)


@pytest.mark.parametrize("end", ["silence", "terminate"])
def test_the_connection_that_reads_manifests_is_replaced(
    gateway: Gateway, make_gateway: Callable[..., Gateway], end: str
) -> None:
    gateway.finish(1, product_image=picture(640, 640))
    with gateway_by_cable(gateway, make_gateway, b"left join media_variants") as (other, cable):
        before = other.get(PATH).headers["etag"]
        if end == "silence":
            assert cable.silence() == 1
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
