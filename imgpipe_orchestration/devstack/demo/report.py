"""The demo's page: one file with everything in it, which outlives the stack that it tells of."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from decimal import Decimal
from pathlib import Path

from imgpipe_orchestration.devstack.demo.scenario import Picture, Result

_WIDEST = 640
"""Pixels of a picture on the page. Larger ones are made smaller for it, and what is said of them is the file's."""
_LARGEST = 60_000
"""Bytes up to which a file is on the page as it is."""
_TITLES = {
    "media": (
        "Media",
        "Photographs uploaded to a profile: six sizes in AVIF, WebP and JPEG, and what AI sees in them.",
    ),
    "listings": ("Listings", "Photographs of a listing: a WebP at the address that was handed out at once."),
    "vision_reports": ("Vision reports", "Analyses of an external API: each with its report, uploaded back."),
    "avatars": ("Avatars", "People who do not exist, each with a biography and five pictures."),
    "auto_marker": (
        "Auto-marker",
        "News documents in MongoDB: their clean image set, and marked as done automatically.",
    ),
}
"""In the order in which they are worth a look."""


def write(folder: Path, results: Sequence[Result], costs: Mapping[str, Decimal]) -> Path:
    """Write `index.html` into `folder`; returns its path.

    Args:
        costs: US dollars by pipeline; those that paid for nothing may be missing.
    """
    from jinja2 import Environment, PackageLoader

    environment = Environment(
        loader=PackageLoader("imgpipe_orchestration.devstack.demo", "."), autoescape=True, trim_blocks=True
    )
    environment.filters["embedded"] = _embedded
    by_name = {result.pipeline: result for result in results}
    shown = [(*_TITLES[name], by_name[name], costs.get(name, Decimal(0))) for name in _TITLES if name in by_name]
    folder.mkdir(parents=True, exist_ok=True)
    page = folder / "index.html"
    page.write_text(environment.get_template("report.html").render(pipelines=shown), encoding="utf-8")
    return page


def _embedded(picture: Picture) -> str:
    """A `data:` URL of the picture, no wider than the page shows it."""
    from PIL import Image

    with Image.open(io.BytesIO(picture.data)) as image:
        kind, data = str(image.format).lower(), picture.data
        if len(data) > _LARGEST:
            image.thumbnail((_WIDEST, _WIDEST))
            smaller = io.BytesIO()
            image.save(smaller, "WEBP", quality=82)
            kind, data = "webp", smaller.getvalue()
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
