"""Style sheets, scripts and pictures of a package, served with ETag and caching headers."""

from __future__ import annotations

import hashlib
from functools import cache
from importlib.resources import files
from typing import NamedTuple

from fastapi import Request, Response

from imgpipe_orchestration.errors import NotFound
from imgpipe_orchestration.web.headers import has_it

_TYPES = {"css": "text/css; charset=utf-8", "js": "text/javascript; charset=utf-8", "svg": "image/svg+xml"}


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
    known = {file.name: file for file in files(package).joinpath(folder).iterdir() if _suffix(file.name) in _TYPES}
    if name not in known:
        raise NotFound(f"There is no {name}; there are {', '.join(sorted(known))}.")
    data = known[name].read_bytes()
    return PackagedFile(data, hashlib.sha256(data).hexdigest()[:16], _TYPES[_suffix(name)])


def answer_with(request: Request, file: PackagedFile, caching: str) -> Response:
    """The file, unless the browser has it."""
    headers = {"Cache-Control": caching, "ETag": f'"{file.version}"'}
    if has_it(request.headers.get("if-none-match"), headers["ETag"]):
        return Response(status_code=304, headers=headers)
    return Response(file.data, media_type=file.media_type, headers=headers)


def _suffix(name: str) -> str:
    return name.rpartition(".")[2]
