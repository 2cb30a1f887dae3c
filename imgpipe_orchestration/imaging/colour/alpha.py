"""Removing alpha channels: opaque ones, and by laying an image over a plain colour."""

from __future__ import annotations

from PIL import Image


def drop_opaque_alpha(image: Image.Image) -> Image.Image:
    """RGB where no pixel of an RGBA image is transparent; files get smaller, and JPEG becomes possible."""
    if image.mode == "RGBA" and image.getchannel("A").getextrema() == (255, 255):
        return image.convert("RGB")
    return image


def flattened(image: Image.Image, background: tuple[int, int, int] = (255, 255, 255)) -> Image.Image:
    """An RGBA image laid over a plain colour, as RGB; others unchanged."""
    if image.mode != "RGBA":
        return image
    plain = Image.new("RGBA", image.size, (*background, 255))
    return Image.alpha_composite(plain, image).convert("RGB")
