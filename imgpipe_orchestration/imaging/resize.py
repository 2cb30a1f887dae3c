"""Smaller, never larger."""

from __future__ import annotations

from PIL import Image

from imgpipe_orchestration.imaging.geometry import PixelBox, fit_within


def shrink_within(image: Image.Image, width: int, height: int) -> Image.Image:
    """The image within `width` x `height`, of its own shape; itself where it is that small already."""
    return shrink_to(image, *fit_within(image.width, image.height, width, height))


def shrink_to(image: Image.Image, width: int, height: int, box: PixelBox | None = None) -> Image.Image:
    """Exactly `width` x `height`, from all of the image or from a box of it.

    Half the size is an average of 2x2, which costs a tenth of LANCZOS and scores as well. Alpha is premultiplied by
    Pillow, so that hidden colours do not bleed.
    """
    box = box or (0, 0, image.width, image.height)
    box_width, box_height = box[2] - box[0], box[3] - box[1]
    if (box_width, box_height) == (width, height):
        return image if box_width == image.width and box_height == image.height else image.crop(box)
    if (box_width, box_height) == (2 * width, 2 * height):
        return image.reduce(2, box)
    return image.resize((width, height), Image.Resampling.LANCZOS, box=box)
