"""Errors as RFC 9457 problem details: what went wrong, for which field, and what to do."""

import errno
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import SecretStr
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from imgpipe_orchestration.errors import BadInput, ImgpipeError, OutOfSpace, Retryable, SettingsError
from imgpipe_orchestration.telemetry.logs import logger
from imgpipe_orchestration.web.access import methods_at
from imgpipe_orchestration.web.forms import IncompleteBody
from imgpipe_orchestration.web.headers import HEADERS

log = logger(__name__)

MEDIA_TYPE = "application/problem+json"
NOT_SET_UP = "This server is not set up for that; its operator finds the reason in its log."


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
    # `about:blank` means that the title is the status' own phrase (RFC 9457, section 4.2.1).
    kind = "about:blank" if title == HTTPStatus(status).phrase else f"urn:imgpipe:problem:{code}"
    body = {"type": kind, "title": title, "status": status, "detail": detail, "code": code, **extensions}
    # `no-store`, or a cache could answer with an error that has long passed. HEADERS, because the answer to an
    # unhandled error is sent outside of every middleware.
    return JSONResponse(body, status, {"Cache-Control": "no-store", **HEADERS, **(headers or {})}, MEDIA_TYPE)


def of_error(error: ImgpipeError) -> JSONResponse:
    """The problem document of one of our own errors."""
    headers: dict[str, str] = {}
    extensions: dict[str, Any] = {"field": error.field} if error.field else {}
    if isinstance(error, Retryable):
        headers["Retry-After"] = str(max(1, round(error.retry_after or 5)))
    if error.status == HTTPStatus.UNAUTHORIZED:
        headers["WWW-Authenticate"] = "Bearer"
    if error.status == HTTPStatus.REQUEST_TIMEOUT:  # or a slow client would go on sending
        headers["Connection"] = "close"
    # Which setting it is, is for the operator, who finds it in the log.
    detail = NOT_SET_UP if isinstance(error, SettingsError) else error.public
    return problem(error.status, error.title, detail, code=error.code, headers=headers, **extensions)


def of_invalid(error: RequestValidationError) -> JSONResponse:
    """The problem document of a request that failed its route's validation, with every error in it."""
    errors = [fault_of(e) for e in error.errors()]
    first = errors[0]
    detail = f"{first['field']}: {first['message']}"
    return problem(422, BadInput.title, detail, code="bad-input", field=first["field"], errors=errors)


def of_http(error: HTTPException, path: str) -> JSONResponse:
    """The problem document of an error of the framework, such as an unknown route."""
    title = HTTPStatus(error.status_code).phrase
    code = title.lower().replace(" ", "-")
    headers = dict(error.headers or {})
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED and (methods := methods_at(path)):
        headers["Allow"] = methods  # Starlette names those of one route
    return problem(error.status_code, title, str(error.detail), code=code, headers=headers)


def reported(error: ImgpipeError, path: str) -> JSONResponse:
    """The problem document of an error, which goes into the log when an operator should hear of it."""
    if error.report:
        log.error(error.public, extra={"path": path, "code": error.code, "detail": error.detail})
    return of_error(error)


def install(app: FastAPI, page: Callable[[Request, Exception, Response], Response]) -> None:
    """Make every error of `app` a problem document.

    Args:
        page: gives a browser that asks for a page something instead of the document.
    """

    # A coroutine, for others go through a thread: when the server ends, an answer would come too late.
    async def answer(request: Request, error: Exception) -> Response:
        document = _document(request.url.path, error)
        if not _concerns_a_page(request, error):
            return document
        try:
            # In a thread, because it reads the session from the database.
            return await run_in_threadpool(page, request, error, document)
        except Exception:
            log.exception("no page of the error")
            return document

    for kind in (ImgpipeError, RequestValidationError, ClientDisconnect, OSError, HTTPException, Exception):
        app.add_exception_handler(kind, answer)


def _document(path: str, error: Exception) -> JSONResponse:
    if isinstance(error, RequestValidationError):
        return of_invalid(error)
    if isinstance(error, ClientDisconnect):
        return of_error(IncompleteBody())  # nobody reads it, but without it a lost connection counts as a 500
    # FastAPI makes a 400 of any error while it reads a body.
    cause = error.__cause__ if isinstance(error, HTTPException) else None
    if (ours := as_ours(error) or as_ours(cause)) is not None:
        return reported(ours, path)
    if isinstance(error, HTTPException):
        return of_http(error, path)
    log.error("unhandled error", extra={"path": path}, exc_info=error)
    detail = "Something went wrong on our side; it has been logged."
    return problem(500, "Internal error", detail, code="internal-error")


def _concerns_a_page(request: Request, error: Exception) -> bool:
    """Whether a browser asks for a page: at a route that the OpenAPI document leaves out, or at none."""
    if "text/html" not in request.headers.get("accept", ""):
        return False
    if isinstance(error, HTTPException) and error.status_code in {404, 405}:
        return True
    return not getattr(request.scope.get("route"), "include_in_schema", True)


def as_ours(error: BaseException | None) -> ImgpipeError | None:
    """One of our own errors, also for a full disk or a used up quota: larger bodies are written to the temporary
    folder. None for others."""
    if isinstance(error, OSError) and error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return OutOfSpace("The gateway's disk is full; nothing was stored. Send it again later.", detail=str(error))
    return error if isinstance(error, ImgpipeError) else None


def fault_of(error: Mapping[str, Any]) -> dict[str, str]:
    """One of FastAPI's validation errors as the field and the message. Some are reworded: for a body that is not JSON
    FastAPI gives the position as the field, for another Content-Type it says that bytes are not an object, and of some
    texts it counts "items after validation"."""
    if error["type"] == "json_invalid":
        return {"field": "body", "message": f"not JSON: {error['ctx']['error']} at character {error['loc'][-1]}"}
    if error["loc"] == ("body",) and isinstance(error["input"], bytes):
        return {"field": "body", "message": "send JSON, with the header `Content-Type: application/json`"}
    within = [str(part) for part in error["loc"] if part not in {"body", "query", "path", "header"}]
    field = ".".join(within) or str(error["loc"][0])  # `payload.batch_size`
    if error["type"] == "unexpected_keyword_argument":  # a dataclass's words for it
        return {"field": field, "message": "Extra inputs are not permitted"}
    if error["type"] in {"too_short", "too_long"} and isinstance(error["input"], str | SecretStr):
        return {"field": field, "message": error["msg"].partition(" after")[0].replace("item", "character")}
    return {"field": field, "message": error["msg"].removeprefix("Value error, ")}
