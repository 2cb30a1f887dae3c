"""Photographs that may be used for anything, for the demo, tests and benches.

`photographs/README.md` names their sources. They are small (up to 1411 px): `jpeg` enlarges on request, and `large`
puts several together; neither has the detail of a photograph of that size.
"""

import io
import random
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont, ImageOps

FOLDER = Path(__file__).parent / "photographs"

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
    return _encode(image, 90)


def large(seed: int) -> bytes:
    """A JPEG of 3000 x 2000 pixels: six photographs side by side, chosen, cut and mirrored by `seed`.

    Different seeds give different bytes, so that nothing along the way is answered from a cache.
    """
    choice = random.Random(seed)  # noqa: S311 - repeatable on purpose
    sheet = Image.new("RGB", (3000, 2000))
    for index, name in enumerate(choice.sample(sorted(PHOTOS), 6)):
        image = open_photo(name)
        left, top = choice.randint(0, image.width // 8), choice.randint(0, image.height // 8)
        image = image.crop((left, top, image.width, image.height))
        if choice.random() < 0.5:
            image = ImageOps.mirror(image)
        sheet.paste(ImageOps.fit(image, (1000, 1000), Image.Resampling.BICUBIC), (index % 3 * 1000, index // 3 * 1000))
    return _encode(sheet, 88)


def drawn_logo() -> bytes:
    """A logo on a plain background, as PNG; drawn here, because real logos are protected."""
    image = Image.new("RGB", (800, 400), "#f4f1ea")
    draw = ImageDraw.Draw(image)
    draw.rounded_rectangle((60, 110, 240, 290), radius=40, fill="#c8402f")
    draw.ellipse((105, 155, 195, 245), fill="#f4f1ea")
    draw.text((280, 200), "imgpipe", fill="#22303c", font=ImageFont.load_default(size=110), anchor="lm")
    return _encode(image, 90, "PNG")


def _encode(image: Image.Image, quality: int, form: str = "JPEG") -> bytes:
    file = io.BytesIO()
    image.save(file, form, quality=quality)
    return file.getvalue()
