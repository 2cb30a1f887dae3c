"""What the model is asked about an image, and the form of the answer."""

import json
from typing import Any, Literal

from pydantic import BaseModel, Field, create_model

from imgpipe_orchestration.prompts.library import Prompt
from imgpipe_orchestration.web.texts import plain_text

Severity = Literal["critical", "high", "medium", "low", "none"]
"""Worst first; `prompts/report.md` says what each means."""


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
    severity: Severity
    confidence: float = Field(ge=0, le=1)
    evidence: Box


class Inspection(BaseModel):
    """The model's answer about one image."""

    summary: str
    findings: list[Finding]


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
