"""Whether a picture is too dark, too bright or too flat."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image


@dataclass(frozen=True, slots=True)
class Exposure:
    """Figures of the brightness (Rec. 601 luma), 0 to 1 each."""

    mean: float
    contrast: float
    """Standard deviation over its largest possible value: 0 for one grey, 1 for half black and half white."""
    clipped_shadows: float
    """Share of pixels at 0 to 2 of 255."""
    clipped_highlights: float
    """Share of pixels at 253 to 255 of 255."""


def exposure(image: Image.Image) -> Exposure:
    """Measured on the histogram."""
    counts = np.array(image.convert("L").histogram(), dtype=np.float64)
    shares = counts / counts.sum()
    levels = np.arange(256) / 255
    mean = float((shares * levels).sum())
    deviation = float(np.sqrt((shares * (levels - mean) ** 2).sum()))
    return Exposure(
        mean=round(mean, 4),
        contrast=round(deviation / 0.5, 4),
        clipped_shadows=round(float(shares[:3].sum()), 4),
        clipped_highlights=round(float(shares[253:].sum()), 4),
    )
