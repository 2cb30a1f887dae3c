"""CORS: lets pages of FRONTEND_ORIGINS call the users' routes.

Users' tokens travel in `Authorization` and never in a cookie, so cookies are not allowed (no
`Access-Control-Allow-Credentials`). The routes of images, components and analyses allow every origin themselves.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from starlette.middleware.cors import CORSMiddleware

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

_USERS = re.compile(r"/users/me|/api/upload/listing_image|/api/media/(uploads(/.+)?|\d+/[a-z-]+)")
"""Paths of the routes that take a user's token."""


class Cors:
    """Starlette's CORS middleware, for the paths of `_USERS` only."""

    def __init__(self, app: ASGIApp, origins: Sequence[str]) -> None:
        self._app = app
        self._open = CORSMiddleware(
            app,
            allow_origins=origins,
            allow_methods=["GET", "PATCH", "POST", "PUT"],
            allow_headers=["Authorization", "Content-Type", "Idempotency-Key", "traceparent"],
            expose_headers=["Retry-After", "traceparent"],
            max_age=86400,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        users = scope["type"] == "http" and _USERS.fullmatch(scope["path"])
        await (self._open if users else self._app)(scope, receive, send)
