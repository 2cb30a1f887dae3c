"""Verdicts by what a picture says of itself: `moderation(sexual=0.9)` in its copyright or its author, or in a text.

So a picture can be flagged that is harmless to look at.
"""

from __future__ import annotations

import json
import re

from starlette.responses import JSONResponse, Response

from imgpipe_orchestration.devstack.standins.measure import from_data_url
from imgpipe_orchestration.devstack.standins.openai_api import authorised_json
from imgpipe_orchestration.devstack.standins.wire import Asked

_SAID = re.compile(rb"moderation\(([^)]{1,200})\)")
_CATEGORIES = (
    *("harassment", "harassment/threatening", "hate", "hate/threatening", "illicit", "illicit/violent", "self-harm"),
    *("self-harm/instructions", "self-harm/intent", "sexual", "sexual/minors", "violence", "violence/graphic"),
)
_WORDS = ("VERY_UNLIKELY", "UNLIKELY", "POSSIBLE", "LIKELY", "VERY_LIKELY")


def said(data: bytes) -> dict[str, float]:
    """The scores that bytes name, by category."""
    found = _SAID.search(data)
    pairs = [pair.partition("=") for pair in found[1].decode(errors="replace").split(",")] if found else []
    return {name.strip(): float(score) for name, _, score in pairs}


def likelihoods(data: bytes) -> dict[str, str]:
    """Google's words of safe search."""
    scores = said(data)
    names = ("adult", "spoof", "medical", "violence", "racy")
    return {name: _WORDS[round(4 * scores.get(name, 0.0))] for name in names}


async def openai(asked: Asked) -> Response:
    """POST /moderations."""
    wanted = authorised_json(asked)
    if isinstance(wanted, Response):
        return wanted
    model, given = str(wanted.get("model", "")), wanted.get("input")
    asked.call.model = model
    parts = [part for part in given if isinstance(part, dict)] if isinstance(given, list) else []
    urls = [part["image_url"]["url"] for part in parts if part.get("type") == "image_url"]
    seen = b"".join(from_data_url(url) or b"" for url in urls) or json.dumps(given).encode()
    scores = dict.fromkeys(_CATEGORIES, 0.0001) | said(seen)
    flags = {name: score >= 0.5 for name, score in scores.items()}
    kinds = {name: ["image" if urls else "text"] for name in scores}
    result = {
        "flagged": any(flags.values()),
        "categories": flags,
        "category_scores": scores,
        "category_applied_input_types": kinds,
    }
    return JSONResponse({"id": "modr-standin", "model": f"{model}-standin", "results": [result], "standin": True})
