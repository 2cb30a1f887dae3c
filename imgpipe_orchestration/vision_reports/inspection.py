"""The view of an image that the model is shown, the question, and the form of the answer.

`view` runs in a worker process (`imaging.workshop`), because the image may be hostile.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any, Literal

from pydantic import BaseModel, Field, create_model

from imgpipe_orchestration.prompts.library import Prompt
from imgpipe_orchestration.web.names import plain_text

VIEW_SIDE = 1280
"""Longest side of the view for the model and the report, pixels; small defects are still visible at this size."""
VIEW_QUALITY = 85


class Box(BaseModel):
    """A rectangle in shares of width and height, from the top left corner."""

    left: float = Field(ge=0, le=1)
    top: float = Field(ge=0, le=1)
    right: float = Field(ge=0, le=1)
    bottom: float = Field(ge=0, le=1)


class Finding(BaseModel):
    """One thing that was seen."""

    title: str
    explanation: str
    severity: Literal["critical", "high", "medium", "low", "none"]
    confidence: float = Field(ge=0, le=1)
    evidence: Box


class Inspection(BaseModel):
    """The model's answer about one image."""

    summary: str
    findings: list[Finding]


@dataclass(frozen=True, slots=True)
class View:
    """An upright sRGB JPEG, and figures: the original's size and what was measured."""

    jpeg: bytes
    measured: dict[str, Any]


def view(data: bytes) -> View:
    """Decode an image, shrink it to `VIEW_SIDE` and measure it.

    Raises:
        BadImage, TooLarge: as `imaging.render.render`.
    """
    from imgpipe_orchestration.imaging.colour.alpha import flattened
    from imgpipe_orchestration.imaging.encoding.encode import encode
    from imgpipe_orchestration.imaging.measuring.exposure import exposure
    from imgpipe_orchestration.imaging.measuring.palette import dominant_colours
    from imgpipe_orchestration.imaging.measuring.sharpness import sharpness
    from imgpipe_orchestration.imaging.recipe import Recipe, Size
    from imgpipe_orchestration.imaging.render import prepare
    from imgpipe_orchestration.imaging.resize import shrink_within

    recipe = Recipe(sizes=(Size("view", VIEW_SIDE, VIEW_SIDE, "within"),), formats=("jpeg",))
    prepared = prepare(data, recipe)
    picture = flattened(prepared.image)
    small = shrink_within(picture, 512, 512)
    measured = {
        "width": prepared.source.width,
        "height": prepared.source.height,
        "format": prepared.source.format,
        "sharpness": round(sharpness(small), 3),
        **{name: round(value, 3) for name, value in asdict(exposure(small)).items()},
        "colours": [colour.hex for colour in dominant_colours(small, most=4)],
        "notes": list(prepared.notes),
    }
    return View(encode(picture, "jpeg", VIEW_QUALITY, recipe), measured)


def question(prompt: Prompt, user_query: str, name: str, description: str, measured: dict[str, Any]) -> str:
    """The text that goes with an image, as JSON, so that texts from outside cannot pass for instructions."""
    given = {
        "question": user_query or None,
        "file_name": name,
        "description": description or None,
        "measured": {key: value for key, value in measured.items() if key != "notes"},
    }
    return prompt.question(given=json.dumps(given, ensure_ascii=False, indent=1), question=user_query)


def shape(prompt: Prompt) -> type[Inspection]:
    """The form of the answer, described as in `prompts/report.md`."""
    finding: Any = prompt.shaped(Finding)
    return create_model("Inspection", __base__=prompt.shaped(Inspection), findings=(list[finding], ...))


def accepted(inspection: Inspection) -> dict[str, Any]:
    """A model's answer as it is stored: texts of limited length, boxes with an area, at most 30 findings."""
    findings = [
        {
            "title": plain_text(finding.title, 160) or "Finding",
            "explanation": plain_text(finding.explanation, 1200),
            "severity": finding.severity,
            "confidence": round(finding.confidence, 3),
            "evidence": _tidy(finding.evidence),
        }
        for finding in inspection.findings[:30]
    ]
    return {"summary": plain_text(inspection.summary, 800), "findings": findings}


_LEAST = 0.02
"""A box narrower than this share is widened: a line cannot be shown as a crop."""


def _tidy(box: Box) -> dict[str, float]:
    left, right = _stretch(min(box.left, box.right), max(box.left, box.right))
    top, bottom = _stretch(min(box.top, box.bottom), max(box.top, box.bottom))
    return {"left": left, "top": top, "right": right, "bottom": bottom}


def _stretch(low: float, high: float) -> tuple[float, float]:
    if high - low < _LEAST:
        middle = min(1 - _LEAST / 2, max(_LEAST / 2, (low + high) / 2))
        low, high = middle - _LEAST / 2, middle + _LEAST / 2
    return round(low, 4), round(high, 4)
