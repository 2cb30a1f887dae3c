"""One look at an original: its measurements, and a small JPEG of it for those who look at it for us."""

from __future__ import annotations

import io
from dataclasses import dataclass

from imgpipe_orchestration.imaging.alpha import drop_opaque_alpha, flattened
from imgpipe_orchestration.imaging.colour import to_srgb
from imgpipe_orchestration.imaging.depth import to_eight_bits
from imgpipe_orchestration.imaging.geometry import fit_within
from imgpipe_orchestration.imaging.measure import Measurements, measure
from imgpipe_orchestration.imaging.opening import decode, open_original
from imgpipe_orchestration.imaging.orientation import upright
from imgpipe_orchestration.imaging.resize import shrink_to

LONGEST = 768
"""Pixels of a preview's longer side: Google asks for 640x480 or more, OpenAI's low detail works at 512, and nothing a
model says about style, subject or text gets better beyond."""
_QUALITY = 85
_WHITE = (255, 255, 255)


@dataclass(frozen=True, slots=True)
class Look:
    """Measurements of an original, and its preview (JPEG, sRGB, upright, on white where it was transparent)."""

    measurements: Measurements
    preview: bytes
    preview_size: tuple[int, int]


def look(data: bytes) -> Look:
    """Measure an original and derive its preview; one call, so that the bytes travel to a worker process once.

    Raises:
        BadImage, TooLarge: as `render.render`.
    """
    measurements = measure(data)
    original = open_original(data)
    enough = fit_within(*original.upright_size, LONGEST, LONGEST)
    image = to_eight_bits(decode(original, enough))
    image, _ = to_srgb(shrink_to(image, *original.stored(enough)))
    image = flattened(drop_opaque_alpha(upright(image, original.orientation)), _WHITE)
    out = io.BytesIO()
    image.save(out, "JPEG", quality=_QUALITY)
    return Look(measurements, out.getvalue(), image.size)
