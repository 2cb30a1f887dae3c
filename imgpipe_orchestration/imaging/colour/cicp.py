"""Colour spaces named by code points (CICP) instead of a profile: PNG's cICP chunk, AVIF's and HEIC's nclx box.

Browsers honour them; Pillow's readers do not. Without this a Display P3 picture comes out flat and an HDR one grey.
Code points and curves are those of ITU-T H.273 (2021), tables 2 and 3.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from imgpipe_orchestration.imaging.colour.srgb_light import Floats, srgb_light
from imgpipe_orchestration.imaging.opencv import cv2
from imgpipe_orchestration.imaging.reading.png_chunks import content_of

_MATRICES = {
    9: ((1.660491, -0.587641, -0.07285), (-0.12455, 1.1329, -0.008349), (-0.018151, -0.100579, 1.11873)),
    12: ((1.22494, -0.22494, 0.0), (-0.042057, 1.042057, 0.0), (-0.019638, -0.078636, 1.098274)),
}
"""Linear light of BT.2020 (ITU-R BT.2087) and of Display P3 (CSS Color 4) to that of sRGB, by the code point of the
primaries. Others count as sRGB."""
_PQ, _HLG = 16, 18
_KNOWN = frozenset({1, 4, 6, 13, 14, 15, _PQ, _HLG})
"""Transfer curves that outrank a profile; all but the two of HDR are shown as sRGB's, as in browsers."""
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
        """Whether the picture can be shown as it is."""
        return self.primaries not in _MATRICES and not self.is_hdr


def _is_known(found: CodePoints) -> bool:
    return found.primaries in {1, *_MATRICES} and found.transfer in _KNOWN


def outranks_profile(data: bytes) -> bool:
    """Whether a PNG's cICP chunk overrides its profile: it does where we know its code points (PNG, third ed., 4.3)."""
    found = _of_png(data)
    return found is not None and _is_known(found)


def _of_png(data: bytes) -> CodePoints | None:
    chunk = content_of(data, b"cICP")
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
    pixels, light = np.asarray(image.convert("RGB")), _light(space.transfer)
    matrix = _MATRICES.get(space.primaries)
    if matrix is None:
        result = Image.fromarray(np.asarray(cv2.LUT(pixels, _levels(light))))
    else:
        linear = cv2.transform(cv2.LUT(pixels, light.astype(np.float32)), np.array(matrix, dtype=np.float32))
        steps = np.round(np.clip(linear, 0, 1) * (_STEPS - 1)).astype(np.uint16)
        result = Image.fromarray(_levels(np.arange(_STEPS) / (_STEPS - 1))[steps])
    if image.mode == "RGBA":
        result.putalpha(image.getchannel("A"))
    return result


def _levels(light: Floats) -> NDArray[np.uint8]:
    """Linear light, 0 to 1, to sRGB levels (IEC 61966-2-1)."""
    value = np.where(light <= 0.0031308, light * 12.92, 1.055 * light ** (1 / 2.4) - 0.055)
    return np.round(255 * value).astype(np.uint8)


def _light(transfer: int) -> Floats:
    """Linear light of each of 256 levels, 1 for white."""
    value: Floats = np.arange(256) / 255
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
