"""What a fault makes of an answer: another one in its place, or the right one gone wrong."""

import asyncio
import base64
import io
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

from PIL import Image
from starlette.responses import JSONResponse, RedirectResponse, Response, StreamingResponse

from imgpipe_orchestration.devstack.standins import people
from imgpipe_orchestration_tests.standins.control import Call, Fault, Kind

_PAGE = b"<!doctype html><title>502 Bad Gateway</title><h1>Not what you asked for</h1>"
_ERRORS = {
    Kind.UNAUTHORIZED: (401, "invalid_api_key", "Incorrect API key provided"),
    Kind.FORBIDDEN: (403, "forbidden", "Not allowed"),
    Kind.NOT_FOUND: (404, "not_found", "Not found"),
    Kind.RATE_LIMIT: (429, "rate_limit_exceeded", "Rate limit reached"),
    Kind.INSUFFICIENT_QUOTA: (429, "insufficient_quota", "You exceeded your current quota, please check your plan"),
    Kind.SERVER_ERROR: (500, "server_error", "The server had an error while processing your request"),
}


def error_of(provider: str, status: int, code: str, message: str) -> dict[str, Any]:
    """An error in the provider's shape."""
    told = f"{code}: {message}"
    match provider:
        case "openai":
            kind = "server_error" if status >= 500 else "requests" if status == 429 else "invalid_request_error"
            kind = code if code == "insufficient_quota" else kind
            return {"error": {"message": message, "type": kind, "param": None, "code": code}, "standin": True}
        case "google":
            return {"error": {"code": status, "message": message, "status": code.upper()}, "standin": True}
        case "flowise":
            return {"statusCode": status, "success": False, "message": told, "stack": {}, "standin": True}
    return {"code": status, "status": "error", "message": told, "standin": True}


def instead(fault: Fault, call: Call) -> Response | None:
    """The answer that a fault gives without asking the stand-in, if it does."""
    kind = fault.kind
    if kind in _ERRORS:
        status, code, message = _ERRORS[kind]
        status = fault.status if kind is Kind.SERVER_ERROR else status
        extra = {"Retry-After": f"{fault.retry_after:g}"} if kind is Kind.RATE_LIMIT else {}
        body = error_of(call.provider, status, code, f"{message} (seeded fault)")
        return JSONResponse(body, status, headers=extra)
    if kind is Kind.CONTENT_POLICY and call.operation in ("images", "edits"):
        message = "Your request was rejected as a result of our safety system (seeded fault)."
        return JSONResponse(error_of(call.provider, 400, "content_policy_violation", message), 400)
    others: dict[Kind, Callable[[], Response]] = {
        Kind.NOT_JSON: lambda: Response(_PAGE, media_type="text/html"),
        Kind.WRONG_SHAPE: lambda: JSONResponse({"unexpected": ["shape", 1, None], "standin": True}),
        Kind.REDIRECT: lambda: RedirectResponse(fault.location, 302),
        Kind.HUGE_FILE: lambda: Response(b"\xff\xd8\xff" + bytes(fault.size), media_type="image/jpeg"),
    }
    return others[kind]() if kind in others else None


def spoilt(fault: Fault, call: Call, response: Response) -> Response:
    """A good answer, made bad on its way out."""
    body, status = bytes(response.body), response.status_code
    match fault.kind:
        case Kind.TRUNCATED_JSON:
            return Response(body[: len(body) // 2], status, media_type=response.headers.get("content-type"))
        case Kind.CUT:
            return StreamingResponse(_cut(body), status, headers=dict(response.headers))
        case Kind.DRIP:
            return StreamingResponse(_drip(body, fault.seconds), status, headers=dict(response.headers))
    change = _CHANGES.get(fault.kind)
    if change is None:
        return response
    answer = json.loads(body)
    change(answer, call)
    return JSONResponse(answer, status)


def _invalid(answer: dict[str, Any], call: Call) -> None:
    text = '{"not": "what the schema asks for"}'
    match call.operation:
        case "responses":
            answer["output"][0]["content"][0]["text"] = text
        case "chat":
            answer["choices"][0]["message"]["content"] = text
        case "prediction":
            answer.pop("json", None)
            answer["text"] = "I would rather tell you a story (seeded fault)."


def _refusal(answer: dict[str, Any], call: Call) -> None:
    words = "I'm sorry, I can't help with that (seeded fault)."
    if call.operation == "responses":
        answer["output"][0]["content"] = [{"type": "refusal", "refusal": words}]
    elif call.operation == "chat":
        answer["choices"][0]["message"] |= {"content": None, "refusal": words}


def _endless(answer: dict[str, Any], _: Call) -> None:
    answer["data"]["total"] = 1_000_000


def _cut_off(answer: dict[str, Any], _: Call) -> None:
    encoded = answer["data"][0]["b64_json"]
    answer["data"][0]["b64_json"] = encoded[: len(encoded) * 2 // 3 // 4 * 4]


def _redrawn(draw: Callable[[str, tuple[int, int]], Image.Image]) -> Callable[[dict[str, Any], Call], None]:
    def change(answer: dict[str, Any], _: Call) -> None:
        data = base64.b64decode(answer["data"][0]["b64_json"])
        with Image.open(io.BytesIO(data)) as image:
            picture = draw(people.seed_in(data), image.size)
        encoded = people.encoded(picture, people.seed_in(data))
        answer["data"][0]["b64_json"] = base64.b64encode(encoded).decode()

    return change


def _half_grid(seed: str, size: tuple[int, int]) -> Image.Image:
    """Two portraits side by side, with a gutter."""
    picture = Image.new("RGB", size, (255, 255, 255))
    for column in (0, 1):
        width = (size[0] - 12) // 2
        picture.paste(people.portrait(seed, (width, size[1]), 1 + column), (column * (width + 12), 0))
    return picture


_CHANGES: dict[Kind, Callable[[dict[str, Any], Call], None]] = {
    Kind.INVALID_ANSWER: _invalid,
    Kind.CONTENT_POLICY: _refusal,
    Kind.ENDLESS_PAGES: _endless,
    Kind.TRUNCATED_BASE64: _cut_off,
    Kind.BLANK_IMAGE: _redrawn(lambda _, size: Image.new("RGB", size, (200, 200, 200))),
    Kind.SINGLE_IMAGE: _redrawn(lambda seed, size: people.portrait(seed, size, 1)),
    Kind.HALF_GRID: _redrawn(_half_grid),
}


async def _cut(body: bytes) -> AsyncIterator[bytes]:
    yield body[: len(body) // 2]
    raise ConnectionAbortedError("seeded fault: the connection ends here")


async def _drip(body: bytes, seconds: float) -> AsyncIterator[bytes]:
    step = max(1, len(body) // 50)
    for start in range(0, len(body), step):
        yield body[start : start + step]
        await asyncio.sleep(seconds / 50)
