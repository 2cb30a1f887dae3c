"""`python -m imgpipe_orchestration.gateway`: the gateway on GATEWAY_PORT and FLASK_PORT, until it is told to stop."""

import os
import socket

import uvicorn

from imgpipe_orchestration.errors import SettingsError
from imgpipe_orchestration.gateway.app import create_app
from imgpipe_orchestration.operations.startup import check_settings, misspelled
from imgpipe_orchestration.settings import Settings, load
from imgpipe_orchestration.telemetry import logs

KEEP_ALIVE_SECONDS = 130
"""For how long a connection may rest. Longer than proxies keep theirs (Caddy two minutes, most others one): else one of
them sends an upload at the moment in which the gateway closes the connection, and answers 502."""


def main() -> None:
    settings = load()
    logs.configure(**settings.logging())
    check_settings(settings)
    if said := misspelled():
        logs.logger(__name__).warning("; ".join(said))
    ports = {settings.flask_port: "FLASK_PORT", settings.gateway_port: "GATEWAY_PORT"}
    sockets = [_listen(host_of(settings), port, setting) for port, setting in ports.items()]
    app = create_app(settings)
    _ = app.state.services.engine  # a wrong DATABASE_URL ends the process here with one line, not with a traceback
    config = uvicorn.Config(
        app,
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=5,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
    )
    server = uvicorn.Server(config)
    app.state.stopping = lambda: server.should_exit  # event streams look at it, so that they do not delay the shutdown
    # Not `asyncio.run(server.serve())`, which uses asyncio's own event loop also where uvloop is installed.
    server.run(sockets)


def host_of(settings: Settings) -> str:
    """The address to listen on: GATEWAY_HOST, else every one in production, and loopback in development."""
    return settings.gateway_host or ("0.0.0.0" if settings.production else "127.0.0.1")  # noqa: S104


def _listen(host: str, port: int, setting: str) -> socket.socket:
    v6 = host == "::"
    try:
        family = socket.AF_INET6 if v6 else socket.AF_INET
        return socket.create_server((host, port), family=family, backlog=2048, dualstack_ipv6=v6)
    except OSError as error:
        why = os.strerror(error.errno) if error.errno else str(error)
        raise SettingsError(f"{setting}: {host}:{port} cannot be listened on: {why}") from error


if __name__ == "__main__":
    try:
        main()
    except SettingsError as error:
        raise SystemExit(f"imgpipe: {error.public}") from None
