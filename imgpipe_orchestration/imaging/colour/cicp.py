"""Colour spaces named by code points (CICP) instead of a profile: PNG's cICP chunk, AVIF's and HEIC's nclx box.

Browsers honour them; Pillow's readers do not. Without this a Display P3 picture comes out flat and an HDR one grey.
Code points and curves are those of ITU-T H.273 (2021), tables 2 and 3.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from imgpipe_orchestration.imaging.colour.primaries import Floats, Matrix, matrix_to_srgb, srgb_light
from imgpipe_orchestration.imaging.opencv import cv2
from imgpipe_orchestration.imaging.reading.png_chunks import colour_space_chunks

_C, _D65 = (0.310, 0.316), (0.3127, 0.3290)
_PRIMARIES = {
    4: (_C, (0.67, 0.33), (0.21, 0.71), (0.14, 0.08)),
    5: (_D65, (0.64, 0.33), (0.29, 0.60), (0.15, 0.06)),
    6: (_D65, (0.630, 0.340), (0.310, 0.595), (0.155, 0.070)),
    7: (_D65, (0.630, 0.340), (0.310, 0.595), (0.155, 0.070)),
    8: (_C, (0.681, 0.319), (0.243, 0.692), (0.145, 0.049)),
    9: (_D65, (0.708, 0.292), (0.170, 0.797), (0.131, 0.046)),
    10: ((1 / 3, 1 / 3), (1.0, 0.0), (0.0, 1.0), (0.0, 0.0)),
    11: ((0.314, 0.351), (0.680, 0.320), (0.265, 0.690), (0.150, 0.060)),
    12: (_D65, (0.680, 0.320), (0.265, 0.690), (0.150, 0.060)),
    22: (_D65, (0.630, 0.340), (0.295, 0.605), (0.155, 0.077)),
}
"""White, red, green and blue as CIE 1931 x and y, by code point; 1 is sRGB."""
_PQ, _HLG, _LINEAR, _GAMMA_28 = 16, 18, 8, 5
_REFERENCE_WHITE = 203.0
"""Luminance of paper white, cd/m² (ITU-R BT.2408)."""
_BRIGHTEST = 1000.0
"""Luminance that becomes white, cd/m²: most HDR pictures are graded for it."""
_STEPS = 4096
_NCLX = b"colrnclx"
"""A colour box with code points (ISO/IEC 23000-22); no library tells them of an AVIF."""
_HEAD = 4096
"""Bytes of an AVIF in which it is looked for."""
_FULL_RGB = b"\0\1"
"""Matrix coefficients 0 (RGB) and full range, the only ones that fit a PNG's pixels."""


@dataclass(frozen=True, slots=True)
class CodePoints:
    """H.273's code points for primaries and transfer curve."""

    primaries: int
    transfer: int

    @property
    def is_hdr(self) -> bool:
        return self.transfer in (_PQ, _HLG)

    @property
    def is_srgb(self) -> bool:
        """Whether the picture can be shown as it is; unknown code points count as sRGB, as in browsers."""
        return self.primaries not in _PRIMARIES and not self.is_hdr and self.transfer not in (_LINEAR, _GAMMA_28)

    @property
    def matrix(self) -> Matrix | None:
        """Linear light to linear sRGB; None where the primaries are sRGB's."""
        return _matrix(self.primaries)

    def light(self) -> Floats:
        """Linear light of each of 256 levels, 1 for white."""
        return _to_light(self.transfer)


_SRGB_LIKE = frozenset({1, 4, 6, 13, 14, 15})
"""Transfer curves that browsers treat as sRGB's; 4 is a gamma of 2.2."""


@lru_cache
def _matrix(primaries: int) -> Matrix | None:
    return matrix_to_srgb(np.array(_PRIMARIES[primaries])) if primaries in _PRIMARIES else None


def _is_known(found: CodePoints) -> bool:
    return found.primaries in {1, *_PRIMARIES} and found.transfer in {_LINEAR, _GAMMA_28, _PQ, _HLG, *_SRGB_LIKE}


def outranks_profile(data: bytes) -> bool:
    """Whether a PNG's cICP chunk overrides its profile: it does where we know its code points (PNG, third ed., 4.3)."""
    found = _of_png(data)
    return found is not None and _is_known(found)


def _of_png(data: bytes) -> CodePoints | None:
    chunk = colour_space_chunks(data).get(b"cICP", b"")
    return CodePoints(chunk[0], chunk[1]) if len(chunk) == 4 and chunk[2:] == _FULL_RGB else None


def colour_space(image: Image.Image, data: bytes, name: str) -> CodePoints | None:
    """The colour space that a file names by other means than a profile; None for none, or for sRGB.

    Args:
        image: opened from `data`.
    """
    found = None
    if name == "png":
        found = _of_png(data)
        found = found if found and _is_known(found) else None
    elif name == "avif" and (at := data.find(_NCLX, 0, _HEAD)) > 0:
        found = CodePoints(*struct.unpack(">HH", data[at + 8 : at + 12].ljust(4, b"\0")))
    elif name == "heic" and (nclx := image.info.get("nclx_profile")):
        found = CodePoints(nclx["color_primaries"], nclx["transfer_characteristics"])
    return None if found is None or found.is_srgb else found


def converted(image: Image.Image, space: CodePoints) -> Image.Image:
    """An RGB or RGBA picture in sRGB. Colours outside sRGB are clipped, HDR is tone mapped (Reinhard 2002)."""
    pixels, light = np.asarray(image.convert("RGB")), space.light()
    if space.matrix is None:
        result = Image.fromarray(np.asarray(cv2.LUT(pixels, _levels(light))))
    else:
        linear = cv2.transform(cv2.LUT(pixels, light.astype(np.float32)), np.array(space.matrix, dtype=np.float32))
        steps = np.round(np.clip(linear, 0, 1) * (_STEPS - 1)).astype(np.uint16)
        result = Image.fromarray(_levels(np.arange(_STEPS) / (_STEPS - 1))[steps])
    if image.mode == "RGBA":
        result.putalpha(image.getchannel("A"))
    return result


def _levels(light: Floats) -> NDArray[np.uint8]:
    """Linear light, 0 to 1, to sRGB levels (IEC 61966-2-1)."""
    value = np.where(light <= 0.0031308, light * 12.92, 1.055 * light ** (1 / 2.4) - 0.055)
    return np.round(255 * value).astype(np.uint8)


def _to_light(transfer: int) -> Floats:
    """As `CodePoints.light`."""
    value: Floats = np.arange(256) / 255
    if transfer == _LINEAR:
        return value
    if transfer == _GAMMA_28:
        return np.power(value, 2.8)
    if transfer == _PQ:
        root = value ** (1 / 78.84375)
        nits = 10_000 * (np.maximum(root - 0.8359375, 0) / (18.8515625 - 18.6875 * root)) ** (1 / 0.1593017578125)
        return _compressed(nits / _REFERENCE_WHITE)
    if transfer == _HLG:
        scene = np.where(value <= 0.5, value**2 / 3, (np.exp((value - 0.55991073) / 0.17883277) + 0.28466892) / 12)
        return _compressed(_BRIGHTEST * scene**1.2 / _REFERENCE_WHITE)
    return srgb_light(value)


def _compressed(light: Floats) -> Floats:
    """HDR light (1 for paper white) to 0 to 1: dark tones stay as they are, the brightest become white."""
    most = _BRIGHTEST / _REFERENCE_WHITE
    return np.minimum(light * (1 + light / most**2) / (1 + light), 1)
