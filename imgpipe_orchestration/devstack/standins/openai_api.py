"""OpenAI's protocol: responses with structured output, embeddings, image generation and editing, models."""

from __future__ import annotations

import base64
import hashlib
import json
import time
from functools import lru_cache
from typing import Any

import numpy as np
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import UploadFile
from starlette.responses import JSONResponse, Response

from imgpipe_orchestration.devstack.standins.control import Control, Kind
from imgpipe_orchestration.devstack.standins.fill import Facts, fill
from imgpipe_orchestration.devstack.standins.measure import from_data_url, measure
from imgpipe_orchestration.devstack.standins.people import draw, grid, person_in, person_of
from imgpipe_orchestration.devstack.standins.wire import Asked, Provider

_SHUTDOWN_DATES: dict[str, str | None] = {
    "gpt-6-luna": None,
    "gpt-6.1-terra": None,
    "gpt-5-mini": "2026-12-11",
    "gpt-4o": "2027-01-14",
    "gpt-4.1": "2027-01-14",
    "text-embedding-3-small": None,
    "text-embedding-3-large": None,
    "gpt-image-1": "2026-10-23",
    "gpt-image-1-mini": "2026-12-01",
    "gpt-image-2": None,
    "gpt-image-2.5-flare": None,
    "gpt-image-2.5-sunburst": None,
    "omni-moderation-latest": None,
}
_DIMENSIONS = {"text-embedding-3-large": 3072}


def error(status: int, code: str, message: str) -> dict[str, Any]:
    """The shape of OpenAI's errors."""
    kind = "server_error" if status >= 500 else "requests" if status == 429 else "invalid_request_error"
    kind = code if code == "insufficient_quota" else kind
    return {"error": {"message": message, "type": kind, "param": None, "code": code}, "standin": True}


def rate_headers(control: Control) -> dict[str, str]:
    """The headers that OpenAI puts on every answer."""
    busy = control.in_flight["openai"]
    return {
        "x-ratelimit-limit-requests": "5000",
        "x-ratelimit-remaining-requests": str(5000 - busy),
        "x-ratelimit-reset-requests": "12ms",
        "x-ratelimit-limit-tokens": "2000000",
        "x-ratelimit-remaining-tokens": str(2_000_000 - 1000 * busy),
        "x-ratelimit-reset-tokens": "30ms",
    }


PROVIDER = Provider("openai", error, rate_headers)


async def responses(asked: Asked) -> Response:
    """POST /responses."""
    wanted = authorised_json(asked)
    if isinstance(wanted, Response):
        return wanted
    model = str(wanted.get("model", ""))
    asked.call.model = model
    text, images = _parts(wanted.get("input"))
    image = next((bytes_ for url in images if (bytes_ := from_data_url(url)) is not None), None)
    seed = hashlib.sha256(text.encode() + (image or "".join(images).encode())).digest()
    form = wanted.get("text", {}).get("format", {})
    facts = Facts(seed, measure(image) if image is not None else None)
    if form.get("type") == "json_schema":
        answer = json.dumps(fill(form["schema"], facts))
    else:
        answer = f"Stand-in answer {facts.number():.6f}"
    if asked.spoils(Kind.INVALID_ANSWER):
        answer = '{"not": "what the schema asks for"}'
    content: dict[str, Any] = {"type": "output_text", "text": answer, "annotations": [], "logprobs": []}
    if asked.spoils(Kind.CONTENT_POLICY):
        content = {"type": "refusal", "refusal": "I'm sorry, I can't help with that (seeded fault)."}
    tokens_in, tokens_out = len(text) // 4 + 85 * len(images), len(answer) // 4
    message = {"id": f"msg_{seed.hex()[:24]}", "type": "message", "status": "completed", "role": "assistant"}
    return JSONResponse(
        {
            "id": f"resp_{seed.hex()[:24]}",
            "object": "response",
            "created_at": int(time.time()),
            "status": "completed",
            "model": f"{model}-standin",
            "output": [{**message, "content": [content]}],
            "error": None,
            "incomplete_details": None,
            "instructions": None,
            "metadata": {},
            "parallel_tool_calls": True,
            "tool_choice": "auto",
            "tools": [],
            "temperature": 1.0,
            "top_p": 1.0,
            "usage": {
                "input_tokens": tokens_in,
                "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
                "output_tokens": tokens_out,
                "output_tokens_details": {"reasoning_tokens": 0},
                "total_tokens": tokens_in + tokens_out,
            },
            "standin": True,
        }
    )


async def chat(asked: Asked) -> Response:
    """POST /chat/completions."""
    wanted = authorised_json(asked)
    if isinstance(wanted, Response):
        return wanted
    asked.call.model = str(wanted.get("model", ""))
    text, images = _parts(wanted.get("messages"))
    image = next((bytes_ for url in images if (bytes_ := from_data_url(url)) is not None), None)
    seed = hashlib.sha256(text.encode() + (image or "".join(images).encode())).digest()
    form: dict[str, Any] = wanted.get("response_format") or {}
    facts = Facts(seed, measure(image) if image is not None else None)
    answer = f"Stand-in answer {facts.number():.6f}"
    if form.get("type") == "json_schema":
        answer = json.dumps(fill(form["json_schema"]["schema"], facts))
    if asked.spoils(Kind.INVALID_ANSWER):
        answer = '{"not": "what the schema asks for"}'
    refused = "I'm sorry, I can't help with that (seeded fault)." if asked.spoils(Kind.CONTENT_POLICY) else None
    message = {"role": "assistant", "content": None if refused else answer, "refusal": refused}
    tokens_in, tokens_out = len(text) // 4 + 85 * len(images), len(answer) // 4
    usage = {"prompt_tokens": tokens_in, "completion_tokens": tokens_out, "total_tokens": tokens_in + tokens_out}
    return JSONResponse(
        {
            "id": f"chatcmpl-{seed.hex()[:24]}",
            "object": "chat.completion",
            "created": int(time.time()),
            "model": f"{asked.call.model}-standin",
            "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
            "usage": usage,
            "standin": True,
        }
    )


async def embeddings(asked: Asked) -> Response:
    """POST /embeddings: texts that share words get vectors that are near each other."""
    wanted = authorised_json(asked)
    if isinstance(wanted, Response):
        return wanted
    model = str(wanted.get("model", ""))
    asked.call.model = model
    texts = [wanted["input"]] if isinstance(wanted.get("input"), str) else list(wanted.get("input", []))
    dimensions = int(wanted.get("dimensions") or _DIMENSIONS.get(model, 1536))
    data = []
    for index, text in enumerate(texts):
        vector = _vector(str(text), dimensions)
        as_base64 = wanted.get("encoding_format") == "base64"
        value = base64.b64encode(vector.tobytes()).decode() if as_base64 else [float(v) for v in vector]
        data.append({"object": "embedding", "index": index, "embedding": value})
    tokens = sum(len(str(text)) // 4 + 1 for text in texts)
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return JSONResponse({"object": "list", "data": data, "model": f"{model}-standin", "usage": usage, "standin": True})


async def generations(asked: Asked) -> Response:
    """POST /images/generations: a portrait of the person that the prompt describes."""
    wanted = authorised_json(asked)
    if isinstance(wanted, Response):
        return wanted
    prompt, size = str(wanted.get("prompt", "")), _size(wanted.get("size"))
    asked.call.model = str(wanted.get("model", ""))
    asked.call.note["prompt"] = prompt[:200]
    if asked.spoils(Kind.CONTENT_POLICY):
        return _policy()
    image = await run_in_threadpool(draw, person_of(prompt), size, blank=asked.spoils(Kind.BLANK_IMAGE))
    return _image(asked, image, prompt, size, wanted.get("quality"), pictures=0)


async def edits(asked: Asked) -> Response:
    """POST /images/edits: the same person again, as a 2x2 grid if the prompt asks for one."""
    if (refused := _authorise(asked)) is not None:
        return refused
    if asked.call.note.get("in_batch"):  # there the body is JSON
        wanted = json.loads(asked.body)
        links = [str(image["image_url"]) for image in wanted.pop("images", [])]
        sources = [base64.b64decode(link.partition(",")[2]) for link in links]
        fields = {name: str(value) for name, value in wanted.items()}
    else:
        async with asked.request.form(max_part_size=64 * 1024 * 1024) as form:
            sources = [
                await value.read()
                for name, value in form.multi_items()
                if name in ("image", "image[]") and isinstance(value, UploadFile)
            ]
            fields = {name: value for name, value in form.multi_items() if isinstance(value, str)}
    if not sources:
        return JSONResponse(error(400, "missing_required_parameter", "Missing required parameter: 'image'"), 400)
    prompt, size = fields.get("prompt", ""), _size(fields.get("size"))
    asked.call.model = fields.get("model", "")
    asked.call.note["prompt"] = prompt[:200]
    # A multipart body has a random boundary in it, so equal requests are told by their parts.
    parts = [*sources, json.dumps(sorted(fields.items())).encode()]
    asked.call.input_hash = hashlib.sha256(b"".join(hashlib.sha256(part).digest() for part in parts)).hexdigest()
    if asked.spoils(Kind.CONTENT_POLICY):
        return _policy()
    person = await run_in_threadpool(person_in, sources[0])
    as_grid = any(word in prompt.lower() for word in ("grid", "2x2", "2×2", "four"))
    if asked.spoils(Kind.BLANK_IMAGE) or not as_grid or asked.spoils(Kind.SINGLE_IMAGE):
        image = await run_in_threadpool(draw, person, size, blank=asked.spoils(Kind.BLANK_IMAGE), pose=1)
    else:
        rows = 1 if asked.spoils(Kind.HALF_GRID) else 2
        image = await run_in_threadpool(grid, person, size, prompt, rows=rows)
    return _image(asked, image, prompt, size, fields.get("quality"), pictures=len(sources))


async def models(asked: Asked) -> Response:
    """GET /models, each with its shutdown date."""
    if (refused := _authorise(asked)) is not None:
        return refused
    data = [
        {"id": name, "object": "model", "created": 1_700_000_000, "owned_by": "standin", "shutdown_date": date}
        for name, date in _SHUTDOWN_DATES.items()
    ]
    return JSONResponse({"object": "list", "data": data, "standin": True})


def _authorise(asked: Asked) -> Response | None:
    if not asked.request.headers.get("authorization", "").removeprefix("Bearer ").strip():
        return JSONResponse(error(401, "invalid_api_key", "You didn't provide an API key."), 401)
    return None


def authorised_json(asked: Asked) -> dict[str, Any] | Response:
    """The body's object, or the refusal of a request without a key or without one."""
    if (refused := _authorise(asked)) is not None:
        return refused
    try:
        wanted = json.loads(asked.body)
    except ValueError:
        wanted = None
    if not isinstance(wanted, dict):
        return JSONResponse(error(400, "invalid_json", "We could not parse the JSON body of your request."), 400)
    return wanted


def _parts(wanted: Any) -> tuple[str, list[str]]:
    """All text and all image URLs of `input`, whichever form it has."""
    if isinstance(wanted, str):
        return wanted, []
    texts, images = [], []
    for message in wanted or []:
        content = message.get("content", [])
        for part in [{"type": "input_text", "text": content}] if isinstance(content, str) else content:
            if part.get("type") == "input_image":
                images.append(str(part.get("image_url", "")))
            elif part.get("type") == "image_url":
                link: Any = part["image_url"]  # an object in chat completions
                images.append(str(link["url"]))
            else:
                texts.append(str(part.get("text", "")))
    return "\n".join(texts), images


def _size(wanted: Any) -> tuple[int, int]:
    try:
        width, height = (int(part) for part in str(wanted).lower().split("x"))
    except ValueError:
        return 1024, 1024
    return min(4096, max(64, width)), min(4096, max(64, height))


def _image(asked: Asked, image: bytes, prompt: str, size: tuple[int, int], quality: Any, *, pictures: int) -> Response:
    encoded = base64.b64encode(image).decode()
    if asked.spoils(Kind.TRUNCATED_BASE64):
        encoded = encoded[: len(encoded) * 2 // 3 // 4 * 4]
    # Output tokens of gpt-image-1 at 1024 x 1024, scaled by area: https://platform.openai.com/docs/guides/image-generation
    per_megapixel = {"low": 272, "medium": 1056, "high": 4160}.get(str(quality), 1056)
    tokens_out = round(per_megapixel * size[0] * size[1] / 1024**2)
    text_tokens, image_tokens = len(prompt) // 4 + 1, 388 * pictures
    usage = {
        "input_tokens": text_tokens + image_tokens,
        "input_tokens_details": {"text_tokens": text_tokens, "image_tokens": image_tokens},
        "output_tokens": tokens_out,
        "total_tokens": text_tokens + image_tokens + tokens_out,
    }
    return JSONResponse(
        {
            "created": int(time.time()),
            "data": [{"b64_json": encoded}],
            "model": f"{asked.call.model}-standin",
            "output_format": "png",
            "quality": str(quality or "medium"),
            "size": f"{size[0]}x{size[1]}",
            "usage": usage,
            "standin": True,
        }
    )


def _policy() -> Response:
    message = "Your request was rejected as a result of our safety system (seeded fault)."
    return JSONResponse(error(400, "content_policy_violation", message), 400)


def _vector(text: str, dimensions: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    """A unit vector: the sum of one stable random vector a word."""
    words = [word for word in "".join(c.lower() if c.isalnum() else " " for c in text).split() if len(word) > 2]
    total = np.zeros(dimensions, dtype=np.float32)
    for word in words or [text]:
        total += _word(word, dimensions)
    unit: np.ndarray[Any, np.dtype[np.float32]] = total / max(1e-9, float(np.linalg.norm(total)))
    return unit


@lru_cache(maxsize=2000)
def _word(word: str, dimensions: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    seed = int.from_bytes(hashlib.sha256(word.encode()).digest()[:8], "big")
    return np.random.default_rng(seed).standard_normal(dimensions, dtype=np.float32)
