"""The colours a picture is made of."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from imgpipe_orchestration.imaging.colour.srgb_light import srgb_light
from imgpipe_orchestration.imaging.opencv import cv2

_SIDE = 96
_MERGE_BELOW = 0.06
"""Oklab distance below which most people call two colours by the same name."""

_LMS = np.array(
    [[0.4122214708, 0.5363325363, 0.0514459929], [0.2119034982, 0.6806995451, 0.1073969566],
     [0.0883024619, 0.2817188376, 0.6299787005]], dtype=np.float32,
)  # fmt: skip
_LAB = np.array(
    [[0.2104542553, 0.7936177850, -0.0040720468], [1.9779984951, -2.4285922050, 0.4505937099],
     [0.0259040371, 0.7827717662, -0.8086757660]], dtype=np.float32,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Colour:
    """One dominant colour."""

    hex: str
    """`#rrggbb`, sRGB."""
    share: float
    """Share of the visible pixels, 0 to 1."""


def dominant_colours(image: Image.Image, most: int = 6) -> tuple[Colour, ...]:
    """Up to `most` colours, largest share first: k-means in Oklab, where distances correspond to perceived ones.

    Transparent pixels do not count. A few milliseconds; the same image always gives the same colours.
    """
    small = image.copy()
    small.thumbnail((_SIDE, _SIDE), Image.Resampling.BOX)
    rgba = np.asarray(small.convert("RGBA")).reshape(-1, 4)
    rgb = rgba[rgba[:, 3] >= 128, :3]
    if not len(rgb):
        return ()
    points = to_oklab(rgb)
    count = min(most, len(np.unique(rgb, axis=0)))
    if count == 1:  # OpenCV would take a single point of three channels for three points
        return (Colour(_hex(rgb, points, points[0]), 1.0),)
    cv2.setRNGSeed(1)
    criteria = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_MAX_ITER, 20, 1e-4)
    start = np.zeros((len(points), 1), dtype=np.int32)
    _, labels, centres = cv2.kmeans(points, count, start, criteria, 1, cv2.KMEANS_PP_CENTERS)
    shares = np.bincount(labels.ravel(), minlength=count) / len(points)
    return tuple(
        Colour(_hex(rgb[labels.ravel() == index], points[labels.ravel() == index], centre), round(float(share), 4))
        for index, share, centre in _merged(shares, np.asarray(centres, dtype=np.float32))
    )


def to_oklab(rgb: NDArray[np.uint8]) -> NDArray[np.float32]:
    """sRGB pixels (n, 3) to Oklab (n, 3); Ottosson 2020, https://bottosson.github.io/posts/oklab."""
    value = rgb.astype(np.float32) / 255
    linear = srgb_light(value).astype(np.float32)
    lab: NDArray[np.float32] = np.cbrt(linear @ _LMS.T) @ _LAB.T
    return np.ascontiguousarray(lab, dtype=np.float32)


def _merged(shares: NDArray[np.float64], centres: NDArray[np.float32]) -> list[tuple[int, float, NDArray[np.float32]]]:
    """Index, share and centre of the clusters, largest first; one close to a larger one is merged into that."""
    kept: list[tuple[int, float, NDArray[np.float32]]] = []
    for index in np.argsort(-shares, kind="stable"):
        near = next((i for i, k in enumerate(kept) if np.linalg.norm(k[2] - centres[index]) < _MERGE_BELOW), None)
        if near is None:
            kept.append((int(index), float(shares[index]), centres[index]))
        else:
            kept[near] = (kept[near][0], kept[near][1] + float(shares[index]), kept[near][2])
    return sorted(kept, key=lambda k: -k[1])


def _hex(rgb: NDArray[np.uint8], points: NDArray[np.float32], centre: NDArray[np.float32]) -> str:
    """The colour of the pixel nearest to the centre, so that it occurs in the picture."""
    nearest = rgb[int(np.argmin(((points - centre) ** 2).sum(axis=1)))]
    return "#" + bytes(int(v) for v in nearest).hex()
