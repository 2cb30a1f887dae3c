"""What can be measured of an image without asking a model."""

from __future__ import annotations

from dataclasses import dataclass

from PIL import Image

from imgpipe_orchestration.imaging.alpha import drop_opaque_alpha, flattened
from imgpipe_orchestration.imaging.cicp import ColourNumbers
from imgpipe_orchestration.imaging.colour import to_srgb
from imgpipe_orchestration.imaging.depth import to_eight_bits
from imgpipe_orchestration.imaging.exposure import Exposure, exposure
from imgpipe_orchestration.imaging.hashing import perceptual_hash, pixel_sha256
from imgpipe_orchestration.imaging.limits import DEFAULT_LIMITS, Limits
from imgpipe_orchestration.imaging.opening import decode, open_original
from imgpipe_orchestration.imaging.orientation import upright
from imgpipe_orchestration.imaging.palette import Colour, dominant_colours
from imgpipe_orchestration.imaging.resize import shrink_within
from imgpipe_orchestration.imaging.sharpness import sharpness
from imgpipe_orchestration.imaging.thumbhash import thumbhash

_MEASURED_AT = 512
_WHITE = (255, 255, 255)


@dataclass(frozen=True, slots=True)
class Measurements:
    """Figures of one image, all of the upright first frame."""

    format: str
    width: int
    height: int
    animated: bool
    has_alpha: bool
    """Some pixel is transparent."""
    pixel_sha256: str
    """Of all decoded pixels, upright, 8 bits a channel: equal for identical pixels in different files."""
    perceptual_hash: int
    """64 bits, see `hashing.perceptual_hash`."""
    thumbhash: bytes
    colours: tuple[Colour, ...]
    sharpness: float
    """0 to 1, see `sharpness.sharpness`."""
    exposure: Exposure


def measure(data: bytes, *, limits: Limits = DEFAULT_LIMITS) -> Measurements:
    """Measure an original. Decodes it in full (the pixel hash needs every pixel), the rest is done at 512 px.

    Raises:
        BadImage, TooLarge: as `render.render`.
    """
    original = open_original(data, limits)
    full = upright(to_eight_bits(decode(original)), original.orientation)
    small, has_alpha = _small(full, original.colours)
    seen = flattened(small, _WHITE)
    width, height = original.upright_size
    return Measurements(
        format=original.sniffed.format,
        width=width,
        height=height,
        animated=original.sniffed.animated,
        has_alpha=has_alpha,
        pixel_sha256=pixel_sha256(drop_opaque_alpha(full)),
        perceptual_hash=perceptual_hash(seen),
        thumbhash=thumbhash(small),
        colours=dominant_colours(small),
        sharpness=sharpness(seen),
        exposure=exposure(seen),
    )


def _small(full: Image.Image, numbers: ColourNumbers | None) -> tuple[Image.Image, bool]:
    """The picture at 512 px in sRGB, and whether any of its pixels is transparent."""
    small = shrink_within(full, _MEASURED_AT, _MEASURED_AT)
    small, _ = to_srgb(small, numbers)
    small = drop_opaque_alpha(small)
    return small, small.mode == "RGBA"
