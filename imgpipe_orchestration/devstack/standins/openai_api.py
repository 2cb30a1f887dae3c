"""OpenAI's protocol: responses with structured output, embeddings, image generation and editing, moderation, models."""

import base64
import hashlib
import json
import time
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import numpy as np
from fastapi import APIRouter, Depends, HTTPException
from fastapi.security import HTTPBearer
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import UploadFile
from starlette.requests import Request

from imgpipe_orchestration.billing.prices import PRICES
from imgpipe_orchestration.devstack.standins import OPENAI
from imgpipe_orchestration.devstack.standins.fill import Facts, fill
from imgpipe_orchestration.devstack.standins.flowise_api import CAMERA_SHY
from imgpipe_orchestration.devstack.standins.measure import from_data_url, measure, verdict
from imgpipe_orchestration.devstack.standins.people import draw, grid, seed_in, seed_of

router = APIRouter(prefix=OPENAI, dependencies=[Depends(HTTPBearer())])

_CATEGORIES = (
    *("harassment", "harassment/threatening", "hate", "hate/threatening", "illicit", "illicit/violent", "self-harm"),
    *("self-harm/instructions", "self-harm/intent", "sexual", "sexual/minors", "violence", "violence/graphic"),
)


def refusal(status: int, code: str, message: str) -> HTTPException:
    """In the shape of OpenAI's errors."""
    said = {"message": message, "type": "invalid_request_error", "param": None, "code": code}
    return HTTPException(status, {"error": said, "standin": True})


@router.post("/responses")
def responses(wanted: dict[str, Any]) -> dict[str, Any]:
    schema = wanted.get("text", {}).get("format", {}).get("schema")
    text, images = _parts(wanted.get("input"))
    image = next((data for url in images if (data := from_data_url(url)) is not None), None)
    seed = hashlib.sha256(text.encode() + (image or "".join(images).encode())).digest()
    facts = Facts(seed, measure(image) if image is not None else None)
    said = json.dumps(fill(schema, facts)) if schema else f"Stand-in answer {facts.number():.6f}"
    name, tokens_in, tokens_out = seed.hex()[:24], len(text) // 4 + 85 * len(images), len(said) // 4
    message = {"id": f"msg_{name}", "type": "message", "status": "completed", "role": "assistant"}
    content = {"type": "output_text", "text": said, "annotations": [], "logprobs": []}
    return _told(
        wanted,
        id=f"resp_{name}",
        object="response",
        created_at=int(time.time()),
        status="completed",
        output=[{**message, "content": [content]}],
        error=None,
        incomplete_details=None,
        usage={
            "input_tokens": tokens_in,
            "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
            "output_tokens": tokens_out,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": tokens_in + tokens_out,
        },
    )


def _told(wanted: Mapping[str, Any], **answer: Any) -> dict[str, Any]:
    """An answer, which says whose it is."""
    return {**answer, "model": f"{wanted.get('model', '')}-standin", "standin": True}


@router.post("/embeddings")
def embeddings(wanted: dict[str, Any]) -> dict[str, Any]:
    """Texts that share words get vectors that are near each other."""
    texts = [wanted["input"]] if isinstance(wanted.get("input"), str) else list(wanted.get("input", []))
    dimensions = int(wanted.get("dimensions") or (3072 if wanted.get("model") == "text-embedding-3-large" else 1536))
    data = []
    for index, text in enumerate(texts):
        vector = _vector(str(text), dimensions)
        as_base64 = wanted.get("encoding_format") == "base64"
        value = base64.b64encode(vector.tobytes()).decode() if as_base64 else [float(v) for v in vector]
        data.append({"object": "embedding", "index": index, "embedding": value})
    tokens = sum(len(str(text)) // 4 + 1 for text in texts)
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return _told(wanted, object="list", data=data, usage=usage)


@router.post("/images/generations")
def generations(wanted: dict[str, Any]) -> dict[str, Any]:
    """A portrait of the person that the prompt describes, unless they are camera-shy."""
    prompt, size = str(wanted.get("prompt", "")), _size(wanted)
    if CAMERA_SHY in prompt:
        raise refusal(400, "content_policy_violation", "Your request was rejected as a result of our safety system.")
    return _image(draw(seed_of(prompt), size), wanted, size, pictures=0)


@router.post("/images/edits")
async def edits(request: Request) -> dict[str, Any]:
    """The same person again, as a 2x2 grid if the prompt asks for one.

    With a form as from everybody, or with JSON as in batches.
    """
    wanted: dict[str, Any]
    if request.headers.get("content-type") == "application/json":
        wanted = await request.json()
        sources = [from_data_url(str(image["image_url"])) or b"" for image in wanted.get("images", [])]
    else:
        async with request.form() as form:
            files = [value for name, value in form.multi_items() if name in ("image", "image[]")]
            sources = [await file.read() for file in files if isinstance(file, UploadFile)]
            wanted = {name: value for name, value in form.multi_items() if isinstance(value, str)}
    if not sources:
        raise refusal(400, "missing_required_parameter", "Missing required parameter: 'image'")
    prompt, size = str(wanted.get("prompt", "")), _size(wanted)
    seed = seed_in(sources[0])
    if any(word in prompt.lower() for word in ("grid", "2x2", "2×2", "four")):
        image = await run_in_threadpool(grid, seed, size)
    else:
        image = await run_in_threadpool(draw, seed, size, pose=1)
    return _image(image, wanted, size, pictures=len(sources))


@router.post("/moderations")
def moderations(wanted: dict[str, Any]) -> dict[str, Any]:
    """By what a picture or a text says of itself."""
    given = wanted.get("input")
    parts = [part for part in given if isinstance(part, dict)] if isinstance(given, list) else []
    urls = [part["image_url"]["url"] for part in parts if part.get("type") == "image_url"]
    seen = b"".join(from_data_url(url) or b"" for url in urls) or json.dumps(given).encode()
    scores = dict.fromkeys(_CATEGORIES, 0.0001) | verdict(seen)
    flags = {name: score >= 0.5 for name, score in scores.items()}
    result = {
        "flagged": any(flags.values()),
        "categories": flags,
        "category_scores": scores,
        "category_applied_input_types": {name: ["image" if urls else "text"] for name in scores},
    }
    return _told(wanted, id="modr-standin", results=[result])


@router.get("/models")
def models() -> dict[str, Any]:
    """Those whose price is known."""
    data = [{"id": name, "object": "model", "created": 1_700_000_000, "owned_by": "standin"} for name in PRICES]
    return {"object": "list", "data": data, "standin": True}


def _parts(messages: Any) -> tuple[str, list[str]]:
    """All text and all image URLs of `input`, whichever form it has."""
    if isinstance(messages, str):
        return messages, []
    texts, images = [], []
    for message in messages or []:
        content = message.get("content", [])
        for part in [{"text": content}] if isinstance(content, str) else content:
            if link := part.get("image_url"):
                images.append(str(link))
            else:
                texts.append(str(part.get("text", "")))
    return "\n".join(texts), images


def _size(wanted: Mapping[str, Any]) -> tuple[int, int]:
    width, height = wanted["size"].split("x")
    return int(width), int(height)


def _image(image: bytes, wanted: Mapping[str, Any], size: tuple[int, int], *, pictures: int) -> dict[str, Any]:
    # Output tokens of gpt-image-1 at 1024 x 1024, scaled by area: https://platform.openai.com/docs/guides/image-generation
    per_megapixel = {"low": 272, "medium": 1056, "high": 4160}.get(str(wanted.get("quality")), 1056)
    tokens_out = round(per_megapixel * size[0] * size[1] / 1024**2)
    text_tokens, image_tokens = len(str(wanted.get("prompt", ""))) // 4 + 1, 388 * pictures
    return _told(
        wanted,
        created=int(time.time()),
        data=[{"b64_json": base64.b64encode(image).decode()}],
        output_format="png",
        quality=str(wanted.get("quality") or "medium"),
        size=f"{size[0]}x{size[1]}",
        usage={
            "input_tokens": text_tokens + image_tokens,
            "input_tokens_details": {"text_tokens": text_tokens, "image_tokens": image_tokens},
            "output_tokens": tokens_out,
            "total_tokens": text_tokens + image_tokens + tokens_out,
        },
    )


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
