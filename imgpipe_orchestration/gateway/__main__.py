"""`python -m imgpipe_orchestration.gateway`: the gateway on GATEWAY_PORT and FLASK_PORT, until it is told to stop."""

from __future__ import annotations

import socket

import uvicorn

from imgpipe_orchestration import logs
from imgpipe_orchestration.diagnosis.configuration import check_settings
from imgpipe_orchestration.errors import SettingsError
from imgpipe_orchestration.gateway.app import create_app
from imgpipe_orchestration.gateway.connections import ImpatientProtocol
from imgpipe_orchestration.settings import Settings, load


def main() -> None:
    settings = load()
    logs.configure_as_set(settings)
    check_settings(settings)
    ports = {settings.flask_port: "FLASK_PORT", settings.gateway_port: "GATEWAY_PORT"}
    sockets = [_listen(host_of(settings), port, setting) for port, setting in ports.items()]
    app = create_app(settings)
    _ = app.state.services.engine  # a wrong DATABASE_URL ends the process here with one line, not with a traceback
    config = uvicorn.Config(
        app,
        http=ImpatientProtocol,
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=5,
    )
    server = uvicorn.Server(config)
    app.state.stopping = lambda: server.should_exit  # event streams look at it, so that they do not delay the shutdown
    # Not `asyncio.run(server.serve())`, which uses asyncio's own event loop also where uvloop is installed.
    server.run(sockets)


def host_of(settings: Settings) -> str:
    """The address to listen on: only loopback in development, where many routes need no key."""
    return "0.0.0.0" if settings.production else "127.0.0.1"  # noqa: S104


def _listen(host: str, port: int, setting: str) -> socket.socket:
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(2048)
    except OSError as error:
        problem = f"{setting}: {host}:{port} cannot be listened on: {error.strerror}"
        raise SettingsError(problem, field=setting) from error
    return listener


if __name__ == "__main__":
    try:
        main()
    except SettingsError as error:
        raise SystemExit(f"imgpipe: {error.public}") from None
