"""Transparency that is there, and transparency that only seems to be."""

from __future__ import annotations

from PIL import Image


def drop_opaque_alpha(image: Image.Image) -> Image.Image:
    """RGB where no pixel of an RGBA image is transparent: smaller files, and JPEG becomes possible."""
    if image.mode == "RGBA" and image.getchannel("A").getextrema() == (255, 255):
        return image.convert("RGB")
    return image


def flattened(image: Image.Image, background: tuple[int, int, int] = (255, 255, 255)) -> Image.Image:
    """RGB: the image laid over a plain colour."""
    if image.mode != "RGBA":
        return image
    plain = Image.new("RGBA", image.size, (*background, 255))
    return Image.alpha_composite(plain, image).convert("RGB")
