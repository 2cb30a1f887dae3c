"""The colour space that a PNG gives by its chunks gAMA and cHRM: a plain gamma, and where its primaries and white lie.

Browsers honour them, Pillow's reader does not: without this a linear picture comes out far too dark. They count least
(PNG, third edition, 4.3), after cICP, iCCP and sRGB, and cHRM without gAMA not at all. Most say roughly what sRGB is,
and then nothing is to be done.
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
"""In 100,000ths; libpng ignores others as well."""
_INTENTS = (b"\0", b"\1", b"\2", b"\3")
"""What sRGB may say; with anything else in it, it says nothing."""
_LIKE_SRGB = (0.95, 1.05)
"""Gamma times 2.2 that nobody tells from sRGB's curve (libpng's PNG_GAMMA_THRESHOLD)."""
_SAME = 0.001
"""Share of light, 3 levels of black at most, by which primaries may differ from sRGB's: they are rounded in files."""
_LARGEST = 20.0
"""Element of a matrix, above which primaries lie nearly on a line: ProPhoto RGB, the widest in use, has 2.0."""
_SRGB = ((0.3127, 0.3290), (0.64, 0.33), (0.30, 0.60), (0.15, 0.06))
"""White, red, green and blue, as x and y of CIE 1931 (IEC 61966-2-1), in the order of cHRM."""
_BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])
"""XYZ to the eye's cones, in which one white is exchanged for another (ICC.1:2022, annex E.3)."""


@dataclass(frozen=True, slots=True)
class Primaries:
    """A colour space by gamma and primaries, which may be sRGB's own."""

    exponent: float
    """What makes light of a level, e.g. 2.2."""
    matrix: Matrix | None
    """Linear light to linear sRGB."""

    @property
    def is_hdr(self) -> bool:
        return False

    def light(self) -> Floats:
        """Linear light, 1 for white, of each of 256 levels."""
        return (np.arange(256) / 255) ** self.exponent


def srgb_light(value: Floats) -> Floats:
    """Linear light of sRGB's values, both 0 to 1 (IEC 61966-2-1)."""
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)


def primaries_of_png(data: bytes) -> Primaries | None:
    """What gAMA and cHRM say; None where that is sRGB, nothing or nonsense, or something else counts more."""
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
    """Linear light to linear sRGB; None where there is nothing to be done, or no such colours can be.

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
    """Light to XYZ, columns red, green, blue; None of points that are no colours, or whose white is no mixture."""
    xyz = np.column_stack([points, 1 - points.sum(axis=1)])
    white, primaries = xyz[0], xyz[1:].T
    if xyz.min() < 0 or white[1] <= 0 or abs(np.linalg.det(primaries)) < 1e-6:
        return None
    shares = np.linalg.solve(primaries, white / white[1])
    return None if shares.min() <= 0 else primaries * shares
