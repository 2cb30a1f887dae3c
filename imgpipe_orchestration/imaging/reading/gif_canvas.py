"""GIFs whose first frame is smaller than their canvas.

The rest of the canvas is transparent in browsers; Pillow paints it in the background colour that the file names.
"""

from __future__ import annotations

from PIL import Image, ImageFile

from imgpipe_orchestration.imaging.geometry import PixelBox


def covered(image: Image.Image) -> PixelBox | None:
    """The part of the canvas that the first frame covers; asked before the image is decoded.

    None where that is all of it, or where Pillow leaves the rest transparent (the frame has a transparent colour).
    """
    if not isinstance(image, ImageFile.ImageFile) or not image.tile or "transparency" in image.info:
        return None
    box = image.tile[0].extents
    return None if box is None or box == (0, 0, *image.size) else box


def only(image: Image.Image, box: PixelBox) -> Image.Image:
    """The decoded frame on a transparent canvas."""
    result = Image.new("RGBA", image.size)
    result.paste(image.crop(box).convert("RGBA"), box[:2])
    result.info = dict(image.info)
    return result
