"""The report on a batch: one HTML file without scripts and without references to other files.

The template engine escapes all texts from outside. A content security policy in the file allows only its own style
sheet (by its hash) and inline images.
"""

from __future__ import annotations

import base64
import hashlib
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from imgpipe_orchestration.vision_reports.batches import Batch, BatchImage
from imgpipe_orchestration.vision_reports.inspection import Severity
from imgpipe_orchestration.web.texts import short

if TYPE_CHECKING:
    import jinja2
    from PIL import Image

_TEMPLATES = Path(__file__).parent / "templates"
_SEVERITIES: tuple[str, ...] = get_args(Severity)
_PICTURE_SIDES = ((12, 1024), (40, 800), (100, 560))
"""(up to so many images, longest side of each picture in pixels); with more images, or little room, _SMALL_SIDE."""
_SMALL_SIDE = 400
_CROP_SIDE = 320
_CROP_MARGIN = 0.35
"""Margin around a finding's box in its crop, as a share of the box, so that its surroundings are visible."""
_FINDINGS_IN_ALL = 600
_LONGEST_TEXT = 4000
_LONGEST_LIST = 200
"""Most missing images, and most notes, that are listed."""
_STEPS = 30


def write(batch: Batch, *, picture: Callable[[BatchImage], bytes], limit: int) -> bytes:
    """The report, UTF-8, no longer than `limit` bytes.

    Args:
        picture: returns the JPEG that the model saw of an image.
        limit: pictures that do not fit are left out, those of the least serious images first. If the texts alone are
            too long, texts and lists are halved until they fit; whole images are left out last.
    """
    made_at = datetime.now(UTC)
    # Texts first; pictures get the rest of the limit.
    for step in range(_STEPS):
        context = _context(batch, made_at, step)
        left = limit - len(_render(context)) - 2_000
        if left >= 0:
            break
    side = next((side for most, side in _PICTURE_SIDES if len(batch.images) <= most), _SMALL_SIDE)
    by_position = {image.position: image for image in batch.images}
    for shown in context["images"]:
        taken = _illustrate(shown, by_position[shown["position"]], picture, side, left)
        if taken is None:
            break
        left -= taken
    return _render(context)


def _context(batch: Batch, made_at: datetime, step: int) -> dict[str, Any]:
    """The template's values. Counts are of everything; texts and lists get shorter with each `step`, from 0."""
    seen = [image for image in batch.images if image.analysis is not None]
    most = max(1, 3 >> step, (_FINDINGS_IN_ALL >> step) // max(1, len(seen)))
    text, listed = max(80, _LONGEST_TEXT >> step), max(5, _LONGEST_LIST >> step)
    images = sorted((_image(image, most, text) for image in seen), key=lambda i: (i["rank"], i["position"]))
    counts: Counter[str] = sum((image["severities"] for image in images), Counter())
    missing = [(one["name"], one["reason"]) for one in batch.missing]
    missing += [(i.name, i.error or "not analysed") for i in batch.images if i.analysis is None]
    shown = images[: len(images) >> max(0, step - 5)]
    models = sorted({image["model"] for image in images})
    return {
        "batch_id": str(batch.batch_id),
        "organization_id": batch.organization_id,
        "query": short(batch.user_query, text),
        "made_at": made_at,
        "models": models,
        "standin": any(image["standin"] for image in images),
        "counts": [(severity, counts[severity]) for severity in _SEVERITIES],
        "findings_total": sum(counts.values()),
        "clean": sum(1 for image in images if image["rank"] == len(_SEVERITIES)),
        "top": _most_serious(shown),
        "images": shown,
        "images_left_out": len(images) - len(shown),
        "missing": [{"name": short(name, text), "reason": short(reason, text)} for name, reason in missing[:listed]],
        "missing_left_out": max(0, len(missing) - listed),
        "notes": [short(note, text) for note in batch.notes[:listed]],
        "notes_left_out": max(0, len(batch.notes) - listed),
    }


def _image(image: BatchImage, most: int, text: int) -> dict[str, Any]:
    """An image with its findings, worst first and numbered. `rank` is its worst severity's, 5 when it has none.

    Args:
        most: findings that are shown.
        text: characters of each text.
    """
    analysis = image.analysis or {}
    ranked = sorted(analysis.get("findings", []), key=_weight)
    findings = [
        {**f, "title": short(f["title"], text), "explanation": short(f["explanation"], text), "number": number}
        for number, f in enumerate(ranked[:most], 1)
    ]
    return {
        "position": image.position,
        "name": short(image.name, text),
        "description": short(image.description, text),
        "summary": short(analysis.get("summary", ""), text),
        "model": analysis.get("model", ""),
        "standin": bool(analysis.get("standin")),
        "measured": image.measured or {},
        "findings": findings,
        "severities": Counter(finding["severity"] for finding in ranked),
        "left_out": len(ranked) - len(findings),
        "rank": _weight(ranked[0])[0] if ranked else len(_SEVERITIES),
        "worst": ranked[0]["severity"] if ranked else "",
        "picture": None,
    }


def _most_serious(images: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The up to five most serious findings, for the summary."""
    serious = [
        {**finding, "image": image["name"], "position": image["position"]}
        for image in images
        for finding in image["findings"]
        if finding["severity"] in ("critical", "high", "medium")
    ]
    return sorted(serious, key=_weight)[:5]


def _weight(finding: dict[str, Any]) -> tuple[int, float]:
    return _SEVERITIES.index(finding["severity"]), -finding["confidence"]


# --- pictures --------------------------------------------------------------------------------------------------------


def _illustrate(
    shown: dict[str, Any], image: BatchImage, picture: Callable[[BatchImage], bytes], side: int, left: int
) -> int | None:
    """Add the picture and the findings' crops; returns their bytes, or None when `left` bytes are too few for them."""
    from PIL import Image

    if left < 20_000:
        return None
    with Image.open(BytesIO(picture(image)), formats=["JPEG"]) as full:
        full.load()
        main = _shown(full, side)
        if len(main["uri"]) > left / 2:
            main = _shown(full, _SMALL_SIDE)
        crops = [_shown(full.crop(_around(f["evidence"], full.size)), _CROP_SIDE) for f in shown["findings"]]
    size = len(main["uri"])
    if size > left:
        return None
    shown["picture"] = main
    for finding, crop in zip(shown["findings"], crops, strict=True):
        if size + len(crop["uri"]) <= left:
            finding["crop"] = crop
            size += len(crop["uri"])
    return size


def _shown(image: Image.Image, side: int) -> dict[str, Any]:
    """A picture in the report: data URI, and size in pixels."""
    small = image.copy()
    small.thumbnail((side, side))
    file = BytesIO()
    small.save(file, "WEBP", quality=72, method=2)
    uri = "data:image/webp;base64," + base64.b64encode(file.getvalue()).decode()
    return {"uri": uri, "width": small.width, "height": small.height}


def _around(box: dict[str, float], size: tuple[int, int]) -> tuple[int, int, int, int]:
    """The box in pixels with a margin, at least an eighth of the image wide and high, inside the image."""
    spans = []
    for low, high, length in ((box["left"], box["right"], size[0]), (box["top"], box["bottom"], size[1])):
        half = max((high - low) * (0.5 + _CROP_MARGIN), 1 / 16)
        middle = min(1 - min(half, 0.5), max(min(half, 0.5), (low + high) / 2))
        start, end = max(0.0, middle - half), min(1.0, middle + half)
        spans.append((int(start * length), max(int(start * length) + 1, round(end * length))))
    (left, right), (top, bottom) = spans
    return left, top, right, bottom


# --- the page --------------------------------------------------------------------------------------------------------


def _render(context: dict[str, Any]) -> bytes:
    return _template().render(**context, data=_machine_readable(context)).encode()


def _machine_readable(context: dict[str, Any]) -> dict[str, Any]:
    return {
        "format": "imgpipe-vision-report/1",
        "batch_id": context["batch_id"],
        "organization_id": context["organization_id"],
        "user_query": context["query"],
        "created_at": context["made_at"].isoformat(timespec="seconds"),
        "models": context["models"],
        "standin": context["standin"],
        "severities": dict(context["counts"]),
        "images": [
            {
                "name": image["name"],
                "description": image["description"],
                "summary": image["summary"],
                "measured": image["measured"],
                "findings": [
                    {key: f[key] for key in ("title", "explanation", "severity", "confidence", "evidence")}
                    for f in image["findings"]
                ],
            }
            for image in sorted(context["images"], key=lambda image: image["position"])
        ],
        **{
            name: context[name]
            for name in ("images_left_out", "missing", "missing_left_out", "notes", "notes_left_out")
        },
    }


@cache
def _template() -> jinja2.Template:
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    # As it is: other letters than Latin ones would take up to three times the bytes.
    environment.policies["json.dumps_kwargs"] = {"ensure_ascii": False, "separators": (",", ":")}
    style = (_TEMPLATES / "report.css").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = f"default-src 'none'; img-src data:; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    return environment.get_template("report.html", globals={"style": style, "policy": policy})
