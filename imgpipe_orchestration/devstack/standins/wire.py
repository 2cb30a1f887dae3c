"""How a stand-in answers: journal, delay, limits and faults around each provider's own handler."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response, StreamingResponse

from imgpipe_orchestration.devstack.standins.control import Call, Control, Fault, Kind

_PAGE = b"<!doctype html><title>502 Bad Gateway</title><h1>Not what you asked for</h1>"
_ERRORS = {
    Kind.UNAUTHORIZED: (401, "invalid_api_key", "Incorrect API key provided"),
    Kind.FORBIDDEN: (403, "forbidden", "Not allowed"),
    Kind.NOT_FOUND: (404, "not_found", "Not found"),
    Kind.RATE_LIMIT: (429, "rate_limit_exceeded", "Rate limit reached"),
    Kind.INSUFFICIENT_QUOTA: (429, "insufficient_quota", "You exceeded your current quota, please check your plan"),
    Kind.SERVER_ERROR: (500, "server_error", "The server had an error while processing your request"),
}


@dataclass
class Asked:
    """A request as a handler sees it. `fault` is set when the handler itself has to misbehave."""

    request: Request
    body: bytes
    call: Call
    fault: Fault | None = None

    def spoils(self, *kinds: Kind) -> bool:
        """Whether one of these faults is asked for."""
        return self.fault is not None and self.fault.kind in kinds


@dataclass(frozen=True)
class Provider:
    """A provider's name and the shape of its errors: (status, code, message) -> JSON."""

    name: str
    error: Callable[[int, str, str], Any]
    headers: Callable[[Control], dict[str, str]] = field(default=lambda _: {})


Handler = Callable[[Asked], Awaitable[Response]]


def answering(
    control: Control, provider: Provider, operation: str, handler: Handler
) -> Callable[[Request], Awaitable[Response]]:
    """The endpoint: everything a stand-in does for every call, around `handler`."""

    async def answer(request: Request, body: bytes, call: Call) -> Response:
        headers = provider.headers(control)
        window = control.over_limit(provider.name)
        if window is not None:
            limit, remaining, reset = window
            headers |= {
                "x-ratelimit-limit-requests": str(limit),
                "x-ratelimit-remaining-requests": str(max(0, remaining)),
                "x-ratelimit-reset-requests": f"{reset * 1000:.0f}ms",
            }
            if remaining < 0:
                call.fault = "limit"
                refused = provider.error(429, "rate_limit_exceeded", "Rate limit reached (stand-in)")
                return JSONResponse(refused, 429, headers={**headers, "Retry-After": f"{reset:.2f}"})
        fault = control.fault_for(provider.name, operation, body + request.url.path.encode())
        call.fault = fault.kind.value if fault else None
        due = time.monotonic() + control.delay_for(provider.name, operation)
        if fault is not None and (early := await _instead(fault, provider, headers)) is not None:
            await asyncio.sleep(due - time.monotonic())
            return early
        response = await handler(Asked(request, body, call, fault))
        # The delay includes the time that the handler took.
        await asyncio.sleep(due - time.monotonic())
        for name, value in headers.items():
            response.headers.setdefault(name, value)
        return _spoilt(fault, provider, response) if fault else response

    async def endpoint(request: Request) -> Response:
        body = await request.body()
        digest = hashlib.sha256(body).hexdigest()
        call = Call(time.time(), provider.name, operation, request.url.path, digest)
        control.enter(call)
        status = 0
        try:
            response = await answer(request, body, call)
            status = response.status_code
            return response
        finally:
            control.leave(call, status)

    return endpoint


async def _instead(fault: Fault, provider: Provider, headers: dict[str, str]) -> Response | None:
    """The answer that a fault gives without asking the handler, if it does."""
    kind = fault.kind
    if kind is Kind.SLOW:
        with suppress(TimeoutError):
            await asyncio.wait_for(fault.withdrawn.wait(), fault.seconds)
        return None
    if kind in _ERRORS:
        status, code, message = _ERRORS[kind]
        status = fault.status if kind is Kind.SERVER_ERROR else status
        extra = {**headers, "Retry-After": f"{fault.retry_after:g}"} if kind is Kind.RATE_LIMIT else {}
        return JSONResponse(provider.error(status, code, f"{message} (seeded fault)"), status, headers=extra)
    others: dict[Kind, Callable[[], Response]] = {
        Kind.NOT_JSON: lambda: Response(_PAGE, media_type="text/html"),
        Kind.WRONG_SHAPE: lambda: JSONResponse({"unexpected": ["shape", 1, None], "standin": True}),
        Kind.REDIRECT: lambda: RedirectResponse(fault.location, 302),
    }
    return others[kind]() if kind in others else None


def _spoilt(fault: Fault, provider: Provider, response: Response) -> Response:
    """A good answer, made bad on its way out."""
    if fault.kind is Kind.LATE_ERROR:
        _, code, message = _ERRORS[Kind.SERVER_ERROR]
        return JSONResponse(provider.error(fault.status, code, f"{message} (seeded fault)"), fault.status)
    if fault.kind not in (Kind.TRUNCATED_JSON, Kind.CUT, Kind.DRIP):
        return response
    body = bytes(response.body)
    if fault.kind is Kind.TRUNCATED_JSON:
        return Response(body[: len(body) // 2], response.status_code, media_type=response.media_type)
    pieces = _cut(body) if fault.kind is Kind.CUT else _drip(body, fault.seconds)
    return StreamingResponse(pieces, response.status_code, headers=dict(response.headers))


async def _cut(body: bytes) -> AsyncIterator[bytes]:
    yield body[: len(body) // 2]
    raise ConnectionAbortedError("seeded fault: the connection ends here")


async def _drip(body: bytes, seconds: float) -> AsyncIterator[bytes]:
    step = max(1, len(body) // 50)
    for start in range(0, len(body), step):
        yield body[start : start + step]
        await asyncio.sleep(seconds / 50)
