"""A path with a slash at its end leads to the one without, if there is that one.

Starlette's own redirect has the client's `Host` in it, which anybody can make up, and a cache may keep it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import quote

from starlette.responses import RedirectResponse
from starlette.routing import Match

if TYPE_CHECKING:
    from fastapi import FastAPI
    from starlette.types import Receive, Scope, Send


def install(app: FastAPI) -> None:
    """Answer requests that no route of `app` takes by a relative redirect, or as before."""
    router = app.router
    router.redirect_slashes = False
    not_found = router.default

    async def without_slash(scope: Scope, receive: Receive, send: Send) -> None:
        bare = scope["path"].rstrip("/")
        # Two at the beginning would be the name of another host.
        is_ours = scope["type"] == "http" and bare != scope["path"] and not bare.startswith("//")
        if is_ours and any(route.matches({**scope, "path": bare})[0] is not Match.NONE for route in router.routes):
            query = f"?{scope['query_string'].decode('latin-1')}" if scope["query_string"] else ""
            answer = RedirectResponse(f"{quote(bare)}{query}", headers={"Cache-Control": "no-store"})
            await answer(scope, receive, send)
        else:
            await not_found(scope, receive, send)

    router.default = without_slash
