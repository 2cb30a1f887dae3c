"""Errors as RFC 9457 problem details: what went wrong, for which field, and what to do."""

from __future__ import annotations

import errno
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from imgpipe_orchestration.errors import BadInput, ImgpipeError, OutOfSpace, Retryable
from imgpipe_orchestration.gateway.forms import IncompleteBody
from imgpipe_orchestration.gateway.headers import HEADERS
from imgpipe_orchestration.logs import logger

log = logger(__name__)

MEDIA_TYPE = "application/problem+json"


def problem(
    status: int,
    title: str,
    detail: str,
    *,
    code: str,
    headers: dict[str, str] | None = None,
    **extensions: Any,
) -> JSONResponse:
    """One problem document; `extensions` are further members, such as `field` or `errors`."""
    body = {"type": "about:blank", "title": title, "status": status, "detail": detail, "code": code, **extensions}
    # An error is about this moment; a cache that kept it would keep the image broken. HEADERS here as well: the answer
    # to an unhandled error is sent from outside every middleware.
    return JSONResponse(body, status, {"Cache-Control": "no-store", **HEADERS, **(headers or {})}, MEDIA_TYPE)


def of_error(error: ImgpipeError) -> JSONResponse:
    """The problem document of one of our own errors."""
    headers: dict[str, str] = {}
    extensions: dict[str, Any] = {}
    if isinstance(error, Retryable):
        headers["Retry-After"] = str(max(1, round(error.retry_after or 5)))
    if isinstance(error, BadInput) and error.field:
        extensions["field"] = error.field
    if error.status == HTTPStatus.UNAUTHORIZED:
        headers["WWW-Authenticate"] = "Bearer"
    return problem(error.status, error.title, error.public, code=error.code, headers=headers, **extensions)


def of_invalid(error: RequestValidationError) -> JSONResponse:
    """The problem document of a request that is not what its route takes; names all that is wrong."""
    errors = [_fault(e) for e in error.errors()]
    first = errors[0]
    detail = f"{first['field']}: {first['message']}"
    return problem(422, BadInput.title, detail, code="bad-input", field=first["field"], errors=errors)


def of_http(error: HTTPException) -> JSONResponse:
    """The problem document of an error of the framework's, such as a route that is not there."""
    title = HTTPStatus(error.status_code).phrase
    code = title.lower().replace(" ", "-")
    return problem(error.status_code, title, str(error.detail), code=code, headers=dict(error.headers or {}))


def reported(error: ImgpipeError, path: str) -> JSONResponse:
    """The problem document of an error, which goes into the log when an operator should hear of it."""
    if error.report:
        log.error(error.public, extra={"path": path, "code": error.code, "detail": error.detail})
    return of_error(error)


def install(app: FastAPI) -> None:
    """Make every error of `app` a problem document."""

    @app.exception_handler(ImgpipeError)
    def _ours(request: Request, error: ImgpipeError) -> JSONResponse:
        return reported(error, request.url.path)

    @app.exception_handler(RequestValidationError)
    def _invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        return of_invalid(error)

    @app.exception_handler(ClientDisconnect)
    def _gone(_: Request, __: ClientDisconnect) -> JSONResponse:
        return of_error(IncompleteBody())  # nobody reads it: it keeps phones in tunnels from counting as faults of ours

    @app.exception_handler(OSError)
    def _of_the_machine(request: Request, error: OSError) -> JSONResponse:
        if not _no_room(error):
            raise error
        return reported(_full(error), request.url.path)

    @app.exception_handler(HTTPException)
    def _http(request: Request, error: HTTPException) -> JSONResponse:
        if _no_room(error.__cause__):  # FastAPI calls it the body's fault
            return reported(_full(error.__cause__), request.url.path)
        return of_http(error)

    @app.exception_handler(Exception)
    def _unhandled(request: Request, error: Exception) -> JSONResponse:
        log.error("unhandled error", extra={"path": request.url.path}, exc_info=error)
        detail = "Something went wrong on our side; it has been logged."
        return problem(500, "Internal error", detail, code="internal-error")


def _no_room(error: BaseException | None) -> bool:
    """Whether a file could not be written for want of room: larger bodies are kept in the temporary folder."""
    return isinstance(error, OSError) and error.errno in {errno.ENOSPC, errno.EDQUOT}


def _full(error: BaseException | None) -> OutOfSpace:
    return OutOfSpace("The gateway's disk is full; nothing was stored. Send it again later.", detail=str(error))


def _fault(error: dict[str, Any]) -> dict[str, str]:
    """One error of FastAPI's as a field and what is wrong with it. Of a body that it could not read as JSON it says the
    character as if that were a field, and of one whose Content-Type is another, that bytes are no object."""
    if error["type"] == "json_invalid":
        return {"field": "body", "message": f"not JSON: {error['ctx']['error']} at character {error['loc'][-1]}"}
    if error["loc"] == ("body",) and isinstance(error["input"], bytes):
        return {"field": "body", "message": "send JSON, with the header `Content-Type: application/json`"}
    return {"field": _field(error["loc"]), "message": error["msg"].removeprefix("Value error, ")}


def _field(location: tuple[int | str, ...]) -> str:
    """`("body", "payload", "batch_size")` as `payload.batch_size`."""
    parts = [str(part) for part in location if part not in {"body", "query", "path", "header"}]
    return ".".join(parts) or str(location[0])
