"""The demo's page: one file with everything in it, which outlives the stack that it tells of."""

import base64
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

from jinja2 import Environment, PackageLoader
from PIL import Image

from imgpipe_orchestration.devstack.demo.scenario import Result
from imgpipe_orchestration.web.texts import size_text

_WIDEST = 640
"""Pixels of a picture on the page. Larger ones are made smaller for it, and what is said of them is the file's."""
_LARGEST = 60_000
"""Bytes up to which a file is on the page as it is."""
_TITLES = {
    "media": ("Media", "Photographs uploaded to a profile: six sizes in three formats, and what AI sees in them."),
    "listings": ("Listings", "Photographs of a listing: a WebP at the address that was handed out at once."),
    "vision_reports": ("Vision reports", "Analyses of an external API: each with its report, uploaded back."),
    "avatars": ("Avatars", "People who do not exist, each with a biography and five pictures."),
    "auto_marker": ("Auto-marker", "News images approved for publication, flagged as done automatically."),
}
"""In the order in which they are worth a look."""


def write(folder: Path, results: Sequence[Result], costs: Mapping[str, float]) -> Path:
    """Write `index.html` into `folder`; returns its path.

    Args:
        costs: US dollars by pipeline; those that paid for nothing may be missing.
    """
    environment = Environment(
        loader=PackageLoader("imgpipe_orchestration.devstack.demo", "."), autoescape=True, trim_blocks=True
    )
    environment.globals["shown"] = _shown
    by_name = {result.pipeline: result for result in results}
    pipelines = [(*_TITLES[name], by_name[name], costs.get(name, 0)) for name in _TITLES if name in by_name]
    folder.mkdir(parents=True, exist_ok=True)
    page = folder / "index.html"
    page.write_text(environment.get_template("report.html").render(pipelines=pipelines), encoding="utf-8")
    return page


def _shown(role: str, data: bytes) -> tuple[str, str]:
    """A `data:` URL of a file, no wider than the page shows it, and words such as `in, 600 x 400, 51 KB`."""
    with Image.open(io.BytesIO(data)) as image:
        words = f"{role}, {image.width} x {image.height}, {size_text(len(data))}"
        kind = str(image.format).lower()
        if len(data) > _LARGEST:
            image.thumbnail((_WIDEST, _WIDEST))
            smaller = io.BytesIO()
            image.save(smaller, "WEBP", quality=82)
            kind, data = "webp", smaller.getvalue()
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}", words
