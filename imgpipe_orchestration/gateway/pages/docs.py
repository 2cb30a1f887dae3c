"""`/docs`: the API to read and to try, from files of our own."""

from __future__ import annotations

from functools import cache
from importlib.resources import files

from fastapi import APIRouter, Response
from fastapi.responses import HTMLResponse

from imgpipe_orchestration.errors import NotFound
from imgpipe_orchestration.gateway.pages import static
from imgpipe_orchestration.gateway.pages.frame import HEADERS, POLICY, PageRoute
from imgpipe_orchestration.gateway.session import Operator

router = APIRouter(prefix="/docs", include_in_schema=False, route_class=PageRoute)

# Swagger UI sets styles on its elements; scripts still come from this origin only.
_POLICY = POLICY.replace("style-src 'self'", "style-src 'self' 'unsafe-inline'")

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>API · imgpipe</title>
<link rel="icon" href="{icon}" type="image/svg+xml">
<link rel="stylesheet" href="/docs/swagger-ui.css">
<script src="/docs/swagger-ui-bundle.js" defer></script>
<script src="{start}" defer></script>
</head>
<body><main id="swagger-ui"></main></body>
</html>
"""

_TYPES = {
    "swagger-ui.css": "text/css; charset=utf-8",
    "swagger-ui-bundle.js": "text/javascript; charset=utf-8",
}


@router.get("", response_class=Response)
def documentation(_: Operator) -> Response:
    """Swagger UI over /openapi.json."""
    shown = _PAGE.format(icon=static.url("icon.svg"), start=static.url("docs.js"))
    return HTMLResponse(shown, headers={**HEADERS, "Content-Security-Policy": _POLICY})


@router.get("/{name}", response_class=Response)
def asset(name: str, _: Operator) -> Response:
    """A file of Swagger UI, which the package fastapi-offline carries."""
    if name not in _TYPES:
        raise NotFound("There is no such file.")
    return Response(_file(name), media_type=_TYPES[name], headers={"Cache-Control": "private, max-age=86400"})


@cache
def _file(name: str) -> bytes:
    return (files("fastapi_offline") / "static" / name).read_bytes()
