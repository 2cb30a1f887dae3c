"""Primaries, the colours that a picture mixes, to those of sRGB; and sRGB's curve."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Matrix = tuple[tuple[float, float, float], ...]

_SAME = 0.001
"""Difference of a matrix from the identity up to which primaries count as sRGB's."""
_LARGEST = 20.0
"""Matrix element above which the primaries lie nearly on a line: ProPhoto RGB, the widest in use, has 2.0."""
_SRGB = ((0.3127, 0.3290), (0.64, 0.33), (0.30, 0.60), (0.15, 0.06))
"""White, red, green and blue as CIE 1931 x and y (IEC 61966-2-1)."""
_BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])
"""XYZ to cone responses, for adapting one white point to another (ICC.1:2022, annex E.3)."""


def srgb_light(value: Floats) -> Floats:
    """sRGB values to linear light, both 0 to 1 (IEC 61966-2-1)."""
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)


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
