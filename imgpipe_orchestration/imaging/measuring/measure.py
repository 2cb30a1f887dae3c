"""One look at an original: what can be measured of it, and a small JPEG of it for the models that analyse it."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass

from PIL import Image

from imgpipe_orchestration.imaging.colour.alpha import drop_opaque_alpha, flattened
from imgpipe_orchestration.imaging.colour.depth import to_eight_bits
from imgpipe_orchestration.imaging.colour.to_srgb import to_srgb
from imgpipe_orchestration.imaging.geometry import fit_within
from imgpipe_orchestration.imaging.hashing import perceptual_hash, pixel_sha256
from imgpipe_orchestration.imaging.measuring.exposure import Exposure, exposure
from imgpipe_orchestration.imaging.measuring.palette import Colour, dominant_colours
from imgpipe_orchestration.imaging.measuring.sharpness import sharpness
from imgpipe_orchestration.imaging.reading.metadata import exif_block, ownership
from imgpipe_orchestration.imaging.reading.opening import Original, decode, open_original
from imgpipe_orchestration.imaging.reading.orientation import upright
from imgpipe_orchestration.imaging.resize import shrink_within

SEEN_AT = 768
"""Longer side, pixels, of the preview that a model analyses: Google asks for 640x480 or more, OpenAI's low detail works
at 512, and answers about style, subject or text do not get better beyond."""
_MEASURED_AT = 512
_QUALITY = 85
_PLACEHOLDER_SIDE = 24
"""Pixels of the longer side: 150 to 300 bytes."""


@dataclass(frozen=True, slots=True)
class Measurements:
    """Figures of one image, all of the upright first frame."""

    width: int
    height: int
    has_alpha: bool
    """Some pixel is transparent."""
    pixel_sha256: str
    """Of all decoded pixels, upright, 8 bits a channel: equal for identical pixels in different files."""
    perceptual_hash: int
    """64 bits, see `hashing.perceptual_hash`."""
    placeholder: str
    """A data URL, see `placeholder`."""
    colours: tuple[Colour, ...]
    sharpness: float
    """0 to 1, see `sharpness.sharpness`."""
    exposure: Exposure


@dataclass(frozen=True, slots=True)
class Look:
    """Measurements of an original, and its preview (JPEG, sRGB, upright; transparency laid over a plain ground; of its
    metadata only author and copyright)."""

    measurements: Measurements
    preview: bytes
    preview_size: tuple[int, int]


@dataclass(frozen=True, slots=True)
class _Decoded:
    """An original's first frame, upright and 8 bits a channel: `full` in its own colour space, `small` within `SEEN_AT`
    pixels in sRGB."""

    original: Original
    full: Image.Image
    small: Image.Image


def look(data: bytes) -> Look:
    """Measure an original and derive its preview from one decoding.

    Raises:
        BadImage, TooLarge: as `render.render`.
    """
    image = _decoded(data)
    preview = flattened(image.small)
    out = io.BytesIO()
    owner = exif_block(ownership(image.original.image))
    preview.save(out, "JPEG", quality=_QUALITY, exif=owner)
    return Look(_measured(image), out.getvalue(), preview.size)


def _decoded(data: bytes) -> _Decoded:
    """Decode in full: the pixel hash needs every pixel.

    Raises:
        BadImage, TooLarge: as `render.render`.
    """
    original = open_original(data)
    full = upright(to_eight_bits(decode(original)), original.orientation)
    size = fit_within(full.width, full.height, SEEN_AT, SEEN_AT)
    # `reducing_gap` lets Pillow average whole pixels first: a third of the time, and not visible at this size.
    small = full.resize(size, Image.Resampling.LANCZOS, reducing_gap=1.5) if size != full.size else full
    small, _ = to_srgb(small)
    return _Decoded(original, full, drop_opaque_alpha(small))


def _measured(image: _Decoded) -> Measurements:
    """The figures of a decoded original; those about looks are taken at 512 px."""
    small = shrink_within(image.small, _MEASURED_AT, _MEASURED_AT)
    seen = flattened(small)
    width, height = image.original.upright_size
    return Measurements(
        width=width,
        height=height,
        has_alpha=small.mode == "RGBA",
        pixel_sha256=pixel_sha256(drop_opaque_alpha(image.full)),
        perceptual_hash=perceptual_hash(seen),
        placeholder=placeholder(small),
        colours=dominant_colours(small),
        sharpness=sharpness(seen),
        exposure=exposure(seen),
    )


def placeholder(image: Image.Image) -> str:
    """A tiny WebP of an RGB or RGBA picture as a data URL, which a browser enlarges into a blur."""
    small = image.copy()
    small.thumbnail((_PLACEHOLDER_SIDE, _PLACEHOLDER_SIDE), Image.Resampling.BOX)
    file = io.BytesIO()
    small.save(file, "WEBP", quality=50, method=4)
    return f"data:image/webp;base64,{base64.b64encode(file.getvalue()).decode()}"
