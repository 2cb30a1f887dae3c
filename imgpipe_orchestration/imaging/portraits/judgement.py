"""Whether generated portraits are usable: not blank, blurred or too small, all of one person and no two the same.

Likeness is judged by colours and layout, without a face model. That notices a landscape, an empty picture or somebody
else among the four; it cannot tell apart people who look alike.
"""

from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np
import numpy.typing as npt
from PIL import Image

from imgpipe_orchestration.errors import BadImage
from imgpipe_orchestration.imaging.measuring import sharpness
from imgpipe_orchestration.imaging.opencv import cv2

_SMALL = 512
"""Side, pixels, to which pictures are resized; sharpness is defined at this size."""
_LEAST_CONTRAST = 4.0
"""Standard deviation of the luma, grey levels, below which a picture is blank."""
_LEAST_SHARPNESS = 0.12
"""Of `measuring.sharpness`: a photograph or a drawing blurred by 4 px at 512 px shows less."""
_SAME_PICTURE = 1.2
"""Mean difference, levels of 255 at 48 px, of two equal pictures at most: recompression makes 0.3, a new pose 4."""
_NEARLY = 10.0
"""Mean difference up to which two pictures may be the same but cut a few pixels apart: 2 to 7 in photos."""
_APART = 8
"""Pixels of _SMALL by which the same picture may be cut apart: cells are trimmed at seams, not at the grid's edge."""
_OTHER_COLOURS = 0.5
_OTHER_SHARE = 0.62
"""A picture shows somebody else if it shares fewer colours than both limits with its best match: this share of its own
colours, and this share of what the others have in common. (Perceptual hashes cannot tell: a new pose of one person
changes up to 34 of 64 bits.)"""
_STRANGERS = 0.3
"""Share of common colours of the best pair below which the pictures show no common person at all."""


def judge(images: Sequence[Image.Image], *, least_side: int) -> dict[str, list[float]]:
    """Judge pictures that should show one person; returns what was measured.

    Args:
        images: RGB; one, or several of the same person in the same framing.
        least_side: pixels, of the shorter side.

    Raises:
        BadImage: they are not usable; the message has all reasons.
    """
    small = [image.resize((_SMALL, _SMALL), Image.Resampling.BOX) for image in images]
    contrasts = [round(float(np.asarray(image.convert("L").reduce(4)).std()), 2) for image in small]
    sharp = [sharpness(image) for image in small]
    reasons: list[str] = []
    for number, image in enumerate(images, 1):
        name = f"picture {number}" if len(images) > 1 else "the picture"
        if min(image.size) < least_side:
            reasons.append(f"{name} is too small ({image.width}x{image.height}, at least {least_side} are wanted)")
        if contrasts[number - 1] < _LEAST_CONTRAST:
            reasons.append(f"{name} is blank")
        elif sharp[number - 1] < _LEAST_SHARPNESS:
            reasons.append(f"{name} is blurred (sharpness {sharp[number - 1]:.2f})")
    measured = {"contrast": contrasts, "sharpness": sharp}
    if len(images) > 1:
        found, distances = _compare(small)
        measured |= distances
        reasons += found
    if reasons:
        raise BadImage("; ".join(reasons))
    return measured


def _compare(small: Sequence[Image.Image]) -> tuple[list[str], dict[str, list[float]]]:
    colours = [_colours(image) for image in small]
    pairs = list(combinations(range(len(small)), 2))
    apart = {(one, other): _difference(small[one], small[other]) for one, other in pairs}
    shared = {(one, other): float(np.minimum(colours[one], colours[other]).sum()) for one, other in pairs}
    reasons = [
        f"pictures {one + 1} and {other + 1} are the same" for one, other in pairs if apart[one, other] <= _SAME_PICTURE
    ]
    reasons += [
        f"picture {number + 1} does not show the same person as the others"
        for number in range(len(small))
        if _is_stranger(number, shared)
    ]
    if max(shared.values()) < _STRANGERS:
        reasons.append("the pictures do not show one person")
    measured = {
        "difference": [round(difference, 2) for difference in apart.values()],
        "shared_colours": [round(share, 3) for share in shared.values()],
    }
    return reasons, measured


def _difference(one: Image.Image, other: Image.Image) -> float:
    """The mean difference of two pictures of _SMALL; of what both show, where they may be the same but cut apart."""
    difference = float(np.abs(_thumb(one) - _thumb(other)).mean())
    return min(difference, _aligned(one, other)) if _SAME_PICTURE < difference <= _NEARLY else difference


def _is_stranger(number: int, shared: Mapping[tuple[int, int], float]) -> bool:
    """Whether a picture shows somebody else, by the colours that pairs share. Only its best match counts, so that one
    stranger does not disqualify the other three."""
    best = max(share for pair, share in shared.items() if number in pair)
    others = [share for pair, share in shared.items() if number not in pair]
    return best < min(_OTHER_COLOURS, _OTHER_SHARE * float(np.median(others or [1])))


def _thumb(image: Image.Image) -> npt.NDArray[np.float32]:
    return np.asarray(image.reduce(_SMALL // 48), dtype=np.float32)


def _aligned(one: Image.Image, other: Image.Image) -> float:
    """The mean difference of two pictures of _SMALL after shifting one onto the other; infinite for large shifts."""
    window = cv2.createHanningWindow((_SMALL, _SMALL), cv2.CV_32F)
    first, second = (np.asarray(image.convert("L"), np.float32) for image in (one, other))
    (x, y), _ = cv2.phaseCorrelate(first, second, window)
    if max(abs(x), abs(y)) > _APART:
        return float("inf")
    laid = other.transform(other.size, Image.Transform.AFFINE, (1, 0, x, 0, 1, y), Image.Resampling.BILINEAR)
    inside = (_APART, _APART, _SMALL - _APART, _SMALL - _APART)
    return float(np.abs(_thumb(one.crop(inside)) - _thumb(laid.crop(inside))).mean())


def _colours(image: Image.Image) -> npt.NDArray[np.float64]:
    """Histogram, 6x6x6, of the middle, where face, hair and clothes are; each count spreads a little to neighbours."""
    edge = image.width // 5
    middle = np.asarray(image.crop((edge, edge, image.width - edge, image.height)).reduce(4), dtype=np.float32)
    counts, _ = np.histogramdd(middle.reshape(-1, 3), bins=(6, 6, 6), range=((0, 256),) * 3)
    spread = counts.copy()
    for axis in range(3):
        for step in (1, -1):
            spread += 0.25 * np.roll(counts, step, axis)
    shares: npt.NDArray[np.float64] = spread / spread.sum()
    return shares
