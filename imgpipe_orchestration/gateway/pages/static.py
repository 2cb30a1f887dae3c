"""The style sheet and the scripts of the pages, each under a URL that changes with its content."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from imgpipe_orchestration.gateway.packaged import PackagedFile, answer_with, packaged

router = APIRouter(include_in_schema=False)

FOR_EVER = "public, max-age=31536000, immutable"


def url(name: str) -> str:
    """The file's URL, which changes with its content."""
    return f"/static/{name}?v={_file(name).version}"


@router.get("/static/{name}", response_class=Response)
def serve(name: str, request: Request) -> Response:
    """One file, cached for ever under the URL with its version, else checked at each use."""
    file = _file(name)
    return answer_with(request, file, FOR_EVER if request.query_params.get("v") == file.version else "no-cache")


@router.get("/favicon.ico", response_class=Response)
def favicon(request: Request) -> Response:
    """The icon that browsers ask for by themselves."""
    return serve("icon.svg", request)


def _file(name: str) -> PackagedFile:
    return packaged(name, __package__, "static")
