"""Style sheets, scripts and pictures of a package, served with ETag and caching headers: those of the pages at /static,
each under a URL that changes with its content."""

import hashlib
from functools import cache
from importlib.resources import files
from pathlib import PurePath
from typing import NamedTuple

from fastapi import APIRouter, Request, Response

from imgpipe_orchestration.errors import NotFound
from imgpipe_orchestration.web.headers import has_it

router = APIRouter(include_in_schema=False)

PAGES = "imgpipe_orchestration.gateway.pages"
FOR_EVER = "public, max-age=31536000, immutable"
_TYPES = {".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".svg": "image/svg+xml"}


class PackagedFile(NamedTuple):
    """A file's bytes, the first 16 hex digits of their SHA-256, and its media type."""

    data: bytes
    version: str
    media_type: str


@cache
def packaged(name: str, package: str, folder: str = ".") -> PackagedFile:
    """
    Raises:
        NotFound: the package's folder has no such file for browsers.
    """
    every = {file.name: file for file in files(package).joinpath(folder).iterdir()}
    known = {name: file for name, file in every.items() if PurePath(name).suffix in _TYPES}
    if name not in known:
        raise NotFound(f"There is no {name}; there are {', '.join(sorted(known))}.")
    data = known[name].read_bytes()
    return PackagedFile(data, hashlib.sha256(data).hexdigest()[:16], _TYPES[PurePath(name).suffix])


def answer_with(request: Request, file: PackagedFile, caching: str) -> Response:
    """The file, unless the browser has it."""
    headers = {"Cache-Control": caching, "ETag": f'"{file.version}"'}
    if has_it(request.headers.get("if-none-match"), headers["ETag"]):
        return Response(status_code=304, headers=headers)
    return Response(file.data, media_type=file.media_type, headers=headers)


def static_url(name: str) -> str:
    """The file's URL, which changes with its content."""
    return f"/static/{name}?v={_file(name).version}"


@router.get("/static/{name}", response_class=Response)
def static(name: str, request: Request) -> Response:
    """One file, cached for ever under the URL with its version, else checked at each use."""
    file = _file(name)
    return answer_with(request, file, FOR_EVER if request.query_params.get("v") == file.version else "no-cache")


@router.get("/favicon.ico", response_class=Response)
def favicon(request: Request) -> Response:
    """The icon that browsers ask for by themselves."""
    return static("icon.svg", request)


def _file(name: str) -> PackagedFile:
    return packaged(name, PAGES, "static")
