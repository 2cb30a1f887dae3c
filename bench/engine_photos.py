"""Photographs for the engine's bench: the demo's, and larger ones put together from them."""

from __future__ import annotations

import io

from PIL import Image

from imgpipe_orchestration.devstack.photos import PHOTOS, open_photo

NAMES = tuple(one.name for one in PHOTOS)


def photo(name: str) -> Image.Image:
    plain = open_photo(name)
    plain.info = {}
    return plain


def wide(name: str, width: int = 1200) -> Image.Image:
    """A photograph at 1200 px, the width of `detail`; most are enlarged to it."""
    image = photo(name)
    return image.resize((width, round(width * image.height / image.width)), Image.Resampling.LANCZOS)


def large(first: int, width: int = 3000, height: int = 2000) -> Image.Image:
    """Six megapixels of photographs side by side, each at its own resolution: as much detail as a camera's."""
    result = Image.new("RGB", (width, height))
    y, index = 0, first
    while y < height:
        x, lowest = 0, height
        while x < width:
            piece = photo(NAMES[index % len(NAMES)])
            index += 1
            result.paste(piece, (x, y))
            x += piece.width
            lowest = min(lowest, piece.height)
        y += lowest
    return result


def originals() -> dict[str, bytes]:
    """What the contenders are given: JPEG and PNG, large and small."""
    return {
        "6 MP JPEG": encoded(large(0), "JPEG", quality=92),
        "6 MP JPEG, another": encoded(large(4), "JPEG", quality=85, progressive=True),
        "6 MP PNG": encoded(large(7), "PNG", compress_level=3),
        "2 MP JPEG": encoded(photo("retina"), "JPEG", quality=95),
    }


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()
