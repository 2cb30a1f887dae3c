"""GIFs whose first frame is smaller than their canvas.

Browsers show what is behind such a picture; Pillow paints the rest in the background colour that the file names.
"""

from __future__ import annotations

from PIL import Image, ImageFile

Box = tuple[int, int, int, int]


def covered(image: Image.Image) -> Box | None:
    """The part of the canvas that the first frame covers, before it is decoded; None where that is all, or where Pillow
    leaves the rest transparent anyway (the frame has a transparent colour)."""
    if not isinstance(image, ImageFile.ImageFile) or not image.tile or "transparency" in image.info:
        return None
    box = image.tile[0].extents
    return None if box is None or box == (0, 0, *image.size) else box


def only(image: Image.Image, box: Box) -> Image.Image:
    """The decoded frame on a transparent canvas."""
    result = Image.new("RGBA", image.size)
    result.paste(image.crop(box).convert("RGBA"), box[:2])
    result.info = dict(image.info)
    return result
