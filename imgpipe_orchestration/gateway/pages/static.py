"""The style sheet and the scripts of the pages, each under a URL that changes with its content."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from imgpipe_orchestration.gateway.packaged import PackagedFile, answer_with, packaged

router = APIRouter(include_in_schema=False)

FOR_EVER = "public, max-age=31536000, immutable"


def url(name: str) -> str:
    """Where a browser gets the file."""
    return f"/static/{name}?v={_file(name).version}"


@router.get("/static/{name}", response_class=Response)
def serve(name: str, request: Request) -> Response:
    """One file; kept for ever under the URL that names its content, else asked for anew."""
    file = _file(name)
    return answer_with(request, file, FOR_EVER if request.query_params.get("v") == file.version else "no-cache")


@router.get("/favicon.ico", response_class=Response)
def favicon(request: Request) -> Response:
    """What browsers ask for unasked."""
    return serve("icon.svg", request)


def _file(name: str) -> PackagedFile:
    return packaged(name, __package__, "static")
