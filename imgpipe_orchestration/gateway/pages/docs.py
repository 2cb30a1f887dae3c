"""`/docs`: the API to read and to try, from files of our own."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from imgpipe_orchestration.gateway.packaged import answer_with, packaged
from imgpipe_orchestration.gateway.pages.frame import POLICY, PageRoute, page
from imgpipe_orchestration.gateway.session import Operator

router = APIRouter(prefix="/docs", include_in_schema=False, route_class=PageRoute)

# Swagger UI sets styles on its elements; scripts still come from this origin only.
_POLICY = POLICY.replace("style-src 'self'", "style-src 'self' 'unsafe-inline'")


@router.get("", response_class=Response)
def documentation(request: Request, session: Operator) -> Response:
    """Swagger UI over /openapi.json."""
    answer = page(request, "docs.html", session)
    answer.headers["Content-Security-Policy"] = _POLICY
    return answer


@router.get("/{name}", response_class=Response)
def asset(name: str, request: Request, _: Operator) -> Response:
    """A file of Swagger UI, which the package fastapi-offline carries."""
    return answer_with(request, packaged(name, "fastapi_offline", "static"), "private, max-age=86400")
