"""What to make of an image (sizes, formats, quality), as a value that can be compared, hashed and stored."""

import hashlib
import json
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Literal

from imgpipe_orchestration.imaging.formats import Format

Fit = Literal["crop", "within"]
Subsampling = Literal["4:2:0", "4:4:4"]
"""Chroma subsampling: half the resolution in both directions, or none."""

ENGINE = 32
"""Raise it when the code makes different pixels from the same recipe, so that a backfill makes them again."""


@dataclass(frozen=True)
class Size:
    """One named size, pixels. `crop` fills width x height exactly, `within` keeps the shape; none is ever enlarged."""

    name: str
    width: int
    height: int
    fit: Fit
    target: float = 75.0
    """SSIMULACRA2 score to reach: 70 is high quality, 90 hard to tell from the original (the metric's own scale)."""


@dataclass(frozen=True)
class Recipe:
    """Everything that decides which bytes are made. Equal recipes make equal bytes of equal input."""

    sizes: tuple[Size, ...]
    formats: tuple[Format, ...] = ("avif", "webp", "jpeg")
    """Best first. `jpeg` stands for PNG where the image has transparency."""
    adaptive: bool = True
    """Search for the quality at which each photo reaches its target score; False uses the fixed qualities."""
    fixed_quality: tuple[tuple[Format, int], ...] = (("avif", 61), ("webp", 79), ("jpeg", 75))
    """Qualities that score 75 on average; also where a search starts."""
    avif_speed: int = 8
    """libaom's speed, 0 to 10: speed 8 makes 0.90 of the bytes of speed 9, in 2.6 times the time."""
    avif_speed_large: int = 9
    """The speed for pictures of more than `large_pixels`, where 8 would take as long as everything else together."""
    large_pixels: int = 1_300_000
    avif_subsampling: Subsampling = "4:2:0"
    """4:4:4 takes three quarters more time. A picture that misses its target in 4:2:0 gets it anyway, also as JPEG."""
    webp_method: int = 3
    """libwebp's effort, 0 to 6: 3 optimises rate-distortion, for 0.93 of the bytes of 2 in 2.3 times the time."""
    webp_method_large: int = 2
    """The method above `large_pixels`, where WebP would take half as long as everything else together."""
    jpeg_subsampling: Subsampling = "4:2:0"

    @cached_property
    def version(self) -> str:
        """Twelve hex digits that change when anything about the recipe or the engine's output changes."""
        text = json.dumps({"engine": ENGINE, **asdict(self)}, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    def quality_of(self, kind: Format) -> int:
        """The fixed quality of a format (PNG has none: 0)."""
        return dict(self.fixed_quality).get(kind, 0)


MEDIA_SIZES = (
    Size("thumbnail", 300, 300, "crop"),
    Size("small", 480, 960, "within"),
    Size("grid", 500, 500, "crop"),
    Size("detail", 1200, 1200, "within"),
    Size("header", 1600, 534, "crop"),
    Size("zoom", 2400, 2400, "within"),
)
"""The specification gives thumbnail, grid and detail; `small` is the width of a phone, `header` a 3:1 banner for a page
1600 pixels wide, `zoom` twice the detail."""

MEDIA = Recipe(sizes=MEDIA_SIZES)
