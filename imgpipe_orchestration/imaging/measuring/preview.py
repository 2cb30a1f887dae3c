"""One look at an original: its measurements, and a small JPEG of it for the models that analyse it."""

from __future__ import annotations

import io
from dataclasses import dataclass

from imgpipe_orchestration.imaging.colour.alpha import flattened
from imgpipe_orchestration.imaging.measuring.measure import Measurements, decoded, measured

_QUALITY = 85


@dataclass(frozen=True, slots=True)
class Look:
    """Measurements of an original, and its preview (JPEG, sRGB, upright; transparency laid over a plain ground)."""

    measurements: Measurements
    preview: bytes
    preview_size: tuple[int, int]


def look(data: bytes) -> Look:
    """Measure an original and derive its preview from one decoding.

    Raises:
        BadImage, TooLarge: as `render.render`.
    """
    image = decoded(data)
    preview = flattened(image.small)
    out = io.BytesIO()
    preview.save(out, "JPEG", quality=_QUALITY)
    return Look(measured(image), out.getvalue(), preview.size)
