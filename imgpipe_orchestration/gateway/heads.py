"""HEAD is answered as GET would be, without the body (RFC 9110, section 9.3.2). FastAPI's routes know GET only."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send


class Heads:
    """Middleware that turns HEAD into GET for the router, and sends the answer's head only."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "HEAD":
            await self.app(scope, receive, send)
            return

        async def only_the_head(message: Message) -> None:
            if message["type"] == "http.response.start":
                await send(message)
                await send({"type": "http.response.body", "body": b""})

        # A copy, because the server reads the method in its own scope.
        asked = {**scope, "method": "GET"}
        try:
            await self.app(asked, receive, only_the_head)
        finally:
            if "route" in asked:  # `metrics` counts requests by route
                scope["route"] = asked["route"]
