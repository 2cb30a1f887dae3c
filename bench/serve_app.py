"""`python bench/serve_app.py PORT KEY`: the gateway, and in the same server a bare Starlette, for bench_serve."""

from __future__ import annotations

import socket
import sys

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from imgpipe_orchestration.gateway.app import create_app
from imgpipe_orchestration.gateway.connections import ImpatientProtocol
from imgpipe_orchestration.services import Services
from imgpipe_orchestration.settings import load


def main(port: int, key: str) -> None:
    settings = load()
    content = Services(settings).media_bucket.get(key)

    async def image(_: Request) -> Response:
        return Response(content, media_type="image/webp", headers={"ETag": '"bare"', "Vary": "Accept"})

    bare = Starlette(routes=[Route("/bare", image)])
    gateway = create_app(settings)

    async def both(scope: Scope, receive: Receive, send: Send) -> None:
        """The bare one stands beside the gateway: none of the gateway's limits, headers and counters slow it down."""
        await (bare if scope.get("path") == "/bare" else gateway)(scope, receive, send)

    listener = socket.create_server(("127.0.0.1", port), backlog=2048)
    config = uvicorn.Config(both, http=ImpatientProtocol, log_config=None, access_log=False, server_header=False)
    uvicorn.Server(config).run([listener])


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
