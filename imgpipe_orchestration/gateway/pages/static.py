"""The style sheet and the scripts of the pages, each under a URL that changes with its content."""

from __future__ import annotations

import hashlib
from functools import cache
from importlib.resources import files

from fastapi import APIRouter, Request, Response

from imgpipe_orchestration.errors import NotFound
from imgpipe_orchestration.gateway.headers import has_it

router = APIRouter(include_in_schema=False)

_TYPES = {"css": "text/css; charset=utf-8", "js": "text/javascript; charset=utf-8", "svg": "image/svg+xml"}
FOR_EVER = "public, max-age=31536000, immutable"


@cache
def content(name: str) -> tuple[bytes, str]:
    """A file's bytes and the first digits of their hash.

    Raises:
        NotFound: there is no such file.
    """
    known = {file.name: file for file in files(__package__).joinpath("static").iterdir()}
    if name not in known:
        raise NotFound("There is no such file.")
    data = known[name].read_bytes()
    return data, hashlib.sha256(data).hexdigest()[:16]


def url(name: str) -> str:
    """Where a browser gets the file."""
    return f"/static/{name}?v={content(name)[1]}"


@router.get("/static/{name}", response_class=Response)
def serve(name: str, request: Request) -> Response:
    """One file; kept for ever under the URL that names its content, else asked for anew."""
    data, version = content(name)
    caching = FOR_EVER if request.query_params.get("v") == version else "no-cache"
    headers = {"Cache-Control": caching, "ETag": f'"{version}"'}
    if has_it(request.headers.get("if-none-match"), headers["ETag"]):
        return Response(status_code=304, headers=headers)
    return Response(data, media_type=_TYPES[name.rpartition(".")[2]], headers=headers)


@router.get("/favicon.ico", response_class=Response)
def favicon(request: Request) -> Response:
    """What browsers ask for unasked."""
    return serve("icon.svg", request)
