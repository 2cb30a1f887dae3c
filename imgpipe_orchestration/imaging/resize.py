"""Shrinks images; never enlarges them."""

from PIL import Image

from imgpipe_orchestration.imaging.geometry import PixelBox, fit_within
from imgpipe_orchestration.imaging.libvips import BANDS, into_libvips, out_of_libvips, resized


def shrink_within(image: Image.Image, width: int, height: int) -> Image.Image:
    """The image within `width` x `height`, of its own shape; itself where it is that small already."""
    return shrink_to(image, *fit_within(image.width, image.height, width, height))


def shrink_to(image: Image.Image, width: int, height: int, box: PixelBox | None = None) -> Image.Image:
    """Exactly `width` x `height` by LANCZOS, from all of the image or from a box of it.

    libvips takes a quarter of Pillow's time. Images with transparency are left to Pillow, which premultiplies alpha so
    that the colours of transparent pixels do not bleed.
    """
    box = box or (0, 0, image.width, image.height)
    if (box[2] - box[0], box[3] - box[1]) == (width, height):
        return image if box == (0, 0, image.width, image.height) else image.crop(box)
    if image.mode not in BANDS:
        return image.resize((width, height), Image.Resampling.LANCZOS, box=box)
    left, top, right, bottom = box
    picture = into_libvips(image).crop(left, top, right - left, bottom - top)
    result = out_of_libvips(resized(picture, width, height), image.mode)
    result.info = dict(image.info)
    return result


def shrink_onto(image: Image.Image, width: int, height: int, box: PixelBox, fill: tuple[int, ...]) -> Image.Image:
    """As `shrink_to`, from a box that may reach beyond the image: there `fill` is shown, a colour in its mode."""
    left, top, right, bottom = box
    inside = max(0, left), max(0, top), min(image.width, right), min(image.height, bottom)
    if inside == box:
        return shrink_to(image, width, height, box)
    across, down = width / (right - left), height / (bottom - top)
    x, y = int((inside[0] - left) * across), int((inside[1] - top) * down)
    shown = (
        min(width - x, max(1, round((inside[2] - inside[0]) * across))),
        min(height - y, max(1, round((inside[3] - inside[1]) * down))),
    )
    canvas = Image.new(image.mode, (width, height), fill)
    canvas.paste(shrink_to(image, *shown, inside), (x, y))
    return canvas
