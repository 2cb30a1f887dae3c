"""The colour space that a PNG gives by its chunks gAMA (a gamma) and cHRM (primaries and white point).

Browsers honour them, Pillow's reader does not: without this a linear picture comes out far too dark. cICP, iCCP and
sRGB take precedence (PNG, third edition, 4.3), and cHRM counts only together with gAMA. Most files describe roughly
sRGB, and then nothing is converted.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from imgpipe_orchestration.imaging.reading.png_chunks import colour_space_chunks

Floats = NDArray[np.float64]
Matrix = tuple[tuple[float, float, float], ...]

_GAMMAS = range(16, 625_000_001)
"""Valid values, in 100,000ths; libpng ignores others as well."""
_INTENTS = (b"\0", b"\1", b"\2", b"\3")
"""Valid contents of an sRGB chunk (rendering intents); with others it is ignored."""
_LIKE_SRGB = (0.95, 1.05)
"""Range of gamma times 2.2 that looks like sRGB's curve (libpng's PNG_GAMMA_THRESHOLD)."""
_SAME = 0.001
"""Difference of a matrix from the identity up to which primaries count as sRGB's, as files round them. It moves dark
pixels by 3 levels at most."""
_LARGEST = 20.0
"""Matrix element above which the primaries lie nearly on a line: ProPhoto RGB, the widest in use, has 2.0."""
_SRGB = ((0.3127, 0.3290), (0.64, 0.33), (0.30, 0.60), (0.15, 0.06))
"""White, red, green and blue as CIE 1931 x and y (IEC 61966-2-1), in the order of cHRM."""
_BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])
"""XYZ to cone responses, for adapting one white point to another (ICC.1:2022, annex E.3)."""


@dataclass(frozen=True, slots=True)
class Primaries:
    """A colour space given by gamma and primaries."""

    exponent: float
    """Level to linear light, e.g. 2.2."""
    matrix: Matrix | None
    """Linear light to linear sRGB; None where the primaries are sRGB's."""

    @property
    def is_hdr(self) -> bool:
        return False

    def light(self) -> Floats:
        """Linear light of each of 256 levels, 1 for white."""
        return (np.arange(256) / 255) ** self.exponent


def srgb_light(value: Floats) -> Floats:
    """sRGB values to linear light, both 0 to 1 (IEC 61966-2-1)."""
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)


def primaries_of_png(data: bytes) -> Primaries | None:
    """The colour space of gAMA and cHRM; None where they are absent or invalid, describe sRGB, or are overridden."""
    found = colour_space_chunks(data)
    gamma, chromaticities = found.get(b"gAMA", b""), found.get(b"cHRM", b"")
    if b"iCCP" in found or found.get(b"sRGB") in _INTENTS:
        return None
    if len(gamma) != 4 or (value := int.from_bytes(gamma)) not in _GAMMAS:
        return None
    exponent = 100_000 / value
    matrix = None
    if len(chromaticities) == 32:
        matrix = matrix_to_srgb(np.array(struct.unpack(">8I", chromaticities)).reshape(4, 2) / 100_000)
    if matrix is None and _LIKE_SRGB[0] <= 2.2 / exponent <= _LIKE_SRGB[1]:
        return None
    return Primaries(exponent, matrix)


def matrix_to_srgb(points: Floats) -> Matrix | None:
    """Linear light to linear sRGB; None where that is the identity, or the primaries are invalid.

    Args:
        points: x and y of white, red, green and blue (CIE 1931).
    """
    to_xyz = _to_xyz(points)
    srgb_to_xyz = _to_xyz(np.array(_SRGB))
    if to_xyz is None or srgb_to_xyz is None:
        return None
    white, srgb_white = _BRADFORD @ to_xyz.sum(axis=1), _BRADFORD @ srgb_to_xyz.sum(axis=1)
    if white.min() <= 0:
        return None
    adapted = np.linalg.inv(_BRADFORD) @ np.diag(srgb_white / white) @ _BRADFORD
    matrix = np.linalg.inv(srgb_to_xyz) @ adapted @ to_xyz
    if np.abs(matrix).max() > _LARGEST or np.abs(matrix - np.eye(3)).max() < _SAME:
        return None
    return tuple(tuple(row) for row in matrix.tolist())


def _to_xyz(points: Floats) -> Floats | None:
    """Linear RGB to XYZ; None where the points are no colours, or the white is no mixture of the primaries."""
    xyz = np.column_stack([points, 1 - points.sum(axis=1)])
    white, primaries = xyz[0], xyz[1:].T
    if xyz.min() < 0 or white[1] <= 0 or abs(np.linalg.det(primaries)) < 1e-6:
        return None
    shares = np.linalg.solve(primaries, white / white[1])
    return None if shares.min() <= 0 else primaries * shares
