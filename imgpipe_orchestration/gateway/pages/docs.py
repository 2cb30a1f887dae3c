"""`/docs`: the API to read and to try, from files of our own."""

from __future__ import annotations

from functools import cache
from importlib.resources import files

from fastapi import APIRouter, Request, Response

from imgpipe_orchestration.errors import NotFound
from imgpipe_orchestration.gateway.pages.frame import POLICY, PageRoute, page
from imgpipe_orchestration.gateway.session import Operator

router = APIRouter(prefix="/docs", include_in_schema=False, route_class=PageRoute)

# Swagger UI sets styles on its elements; scripts still come from this origin only.
_POLICY = POLICY.replace("style-src 'self'", "style-src 'self' 'unsafe-inline'")

_TYPES = {
    "swagger-ui.css": "text/css; charset=utf-8",
    "swagger-ui-bundle.js": "text/javascript; charset=utf-8",
}


@router.get("", response_class=Response)
def documentation(request: Request, session: Operator) -> Response:
    """Swagger UI over /openapi.json."""
    answer = page(request, "docs.html", session)
    answer.headers["Content-Security-Policy"] = _POLICY
    return answer


@router.get("/{name}", response_class=Response)
def asset(name: str, _: Operator) -> Response:
    """A file of Swagger UI, which the package fastapi-offline carries."""
    if name not in _TYPES:
        raise NotFound("There is no such file.")
    return Response(_file(name), media_type=_TYPES[name], headers={"Cache-Control": "private, max-age=86400"})


@cache
def _file(name: str) -> bytes:
    return (files("fastapi_offline") / "static" / name).read_bytes()
