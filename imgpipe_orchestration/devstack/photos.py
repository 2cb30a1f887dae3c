"""Photographs that may be used for anything, for the demo, the stand-ins, tests and benches.

`photographs/README.md` names their sources. They are small (up to 1411 px). One that `jpeg` enlarges has less detail
than a photograph of that size.
"""

import io
from pathlib import Path

from PIL import Image

FOLDER = Path(__file__).parent / "photographs"
LOGO = FOLDER / "logo.png"

PHOTOS = {path.stem: path for path in sorted(FOLDER.iterdir()) if path.suffix in {".webp", ".jpg"}}
"""By name."""


def open_photo(name: str) -> Image.Image:
    """The photograph as RGB, in its own size."""
    with Image.open(PHOTOS[name]) as image:
        return image.convert("RGB")


def jpeg(name: str, *, width: int | None = None) -> bytes:
    """The photograph as JPEG, enlarged or reduced to `width` pixels when given."""
    image = open_photo(name)
    if width is not None:
        image = image.resize((width, round(image.height * width / image.width)), Image.Resampling.LANCZOS)
    file = io.BytesIO()
    image.save(file, "JPEG", quality=90)
    return file.getvalue()
