"""Begin an audit entry with each request that may change something; the routes say who asks and what is done."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from imgpipe_orchestration.identity.audit import Entry, begun

if TYPE_CHECKING:
    from sqlalchemy import Engine
    from starlette.types import ASGIApp, Receive, Scope, Send

_READS = frozenset({"GET", "HEAD", "OPTIONS"})


class Audited:
    """Middleware that puts an `Entry` into the scope, and makes the request's transactions write it."""

    def __init__(self, app: ASGIApp, engine: Callable[[], Engine]) -> None:
        self.app = app
        self._engine = engine

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] in _READS:
            await self.app(scope, receive, send)
            return
        client = scope.get("client")
        with begun(Entry(self._engine(), address=client[0] if client else "")) as entry:
            scope["imgpipe.audit"] = entry
            await self.app(scope, receive, send)
