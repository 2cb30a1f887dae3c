"""A gateway that listens, in a thread of the test's process."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn

from imgpipe_orchestration.gateway.app import create_app
from imgpipe_orchestration.settings import Settings
from imgpipe_orchestration_tests.devstack.running import wait_for


@contextmanager
def live(settings: Settings, listener: socket.socket | None = None, **options: Any) -> Iterator[str]:
    """A gateway and its URL.

    Args:
        listener: for who must know the port before (default: a free port of loopback).
        options: further ones of `uvicorn.Config`.
    """
    with listener or socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        config = uvicorn.Config(
            create_app(settings), log_config=None, access_log=False, timeout_graceful_shutdown=1, **options
        )
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, args=([listening],), daemon=True)
        thread.start()
        try:
            wait_for(lambda: server.started or not thread.is_alive(), "the gateway", 20, every=0.01)
            assert server.started
            yield f"http://127.0.0.1:{port}"
        finally:
            server.should_exit = True
            thread.join(20)
