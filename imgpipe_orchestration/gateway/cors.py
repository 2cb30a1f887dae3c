"""Lets the front ends of FRONTEND_ORIGINS call what users call, from another origin than the gateway's (CORS).

Users' tokens travel in `Authorization` and never in a cookie, so credentials that the browser adds by itself are not
allowed. Images, components and analyses are for every origin and say so themselves.
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
    """Starlette's CORS for `_USERS`; every other path goes by untouched."""

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
