"""What a stand-in can honestly say about an image: size, colours, brightness. A few milliseconds each."""

import base64
import hashlib
import re
from collections import Counter
from dataclasses import dataclass
from functools import lru_cache
from io import BytesIO

import numpy as np
from PIL import Image, UnidentifiedImageError

_VERDICT = re.compile(rb"moderation\(([^)]{1,200})\)")


@dataclass(frozen=True)
class Measured:
    """Figures of one image. Colours are sRGB, 0 to 255; shares are 0 to 1."""

    words: str
    """Its brightness and its shape, e.g. `A dark landscape`."""
    colours: tuple[tuple[tuple[int, int, int], float], ...]
    """The most frequent ones, each with its share."""
    digest: bytes

    @property
    def hexes(self) -> list[str]:
        return ["#{:02x}{:02x}{:02x}".format(*colour) for colour, _ in self.colours]


@lru_cache(maxsize=256)
def measure(image: bytes) -> Measured | None:
    """Figures of an encoded image, or None when it cannot be read."""
    try:
        with Image.open(BytesIO(image)) as opened:
            ratio = opened.width / opened.height
            opened.draft("RGB", (48, 48))
            if opened.width * opened.height > 40_000_000:
                return None
            small = opened.convert("RGB").resize((32, 32), Image.Resampling.BOX, reducing_gap=1.5)
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None
    brightness = np.asarray(small).mean()
    tone = "A bright" if brightness > 140 else "A dark" if brightness < 77 else "An evenly lit"
    shape = "landscape" if ratio > 1.1 else "portrait" if ratio < 0.9 else "square"
    return Measured(words=f"{tone} {shape}", colours=_colours(small), digest=hashlib.sha256(image).digest())


def _colours(small: Image.Image) -> tuple[tuple[tuple[int, int, int], float], ...]:
    six = small.quantize(6, method=Image.Quantize.FASTOCTREE).convert("RGB")
    counts = Counter(map(tuple, np.asarray(six).reshape(-1, 3).tolist()))
    return tuple((colour, count / counts.total()) for colour, count in counts.most_common(5))


def verdict(data: bytes) -> dict[str, float]:
    """Scores by category, which a picture says of itself in its copyright, or a text: `moderation(sexual=0.9)`.

    So a picture can be flagged that is harmless to look at.
    """
    found = _VERDICT.search(data)
    pairs = [pair.partition("=") for pair in found[1].decode(errors="replace").split(",")] if found else []
    return {name.strip(): float(score) for name, _, score in pairs}


def from_data_url(url: str) -> bytes | None:
    """The bytes of a data URL in base64; None for any other URL."""
    return base64.b64decode(url.partition(",")[2]) if url.startswith("data:") else None
