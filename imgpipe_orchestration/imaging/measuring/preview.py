"""One look at an original: its measurements, and a small JPEG of it for the models that analyse it."""

from __future__ import annotations

import io
from dataclasses import dataclass

from imgpipe_orchestration.imaging.colour.alpha import flattened
from imgpipe_orchestration.imaging.measuring.measure import Measurements, decoded, measured
from imgpipe_orchestration.imaging.reading.metadata import exif_block, ownership

_QUALITY = 85


@dataclass(frozen=True, slots=True)
class Look:
    """Measurements of an original, and its preview (JPEG, sRGB, upright; transparency laid over a plain ground; of its
    metadata only author and copyright)."""

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
    owner = exif_block(ownership(image.original.image))
    preview.save(out, "JPEG", quality=_QUALITY, exif=owner)
    return Look(measured(image), out.getvalue(), preview.size)
