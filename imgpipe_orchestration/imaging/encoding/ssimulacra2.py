"""SSIMULACRA2: how close a compressed picture looks to its original, 100 for no difference.

After Sneyers' reference (https://github.com/cloudinary/ssimulacra2, version 2.1): structural similarity, and edges that
appeared or vanished, in the XYB colour space at six scales, with weights fitted to people's judgements. The package
`ssimulacra2` computes the same in float64 with SciPy but takes thirty times as long, too long for a search over
qualities; the tests compare this module with it.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from imgpipe_orchestration.imaging.colour import srgb_light
from imgpipe_orchestration.imaging.opencv import cv2

Plane = NDArray[np.float32]
"""Rows x columns (x channels), float32."""
Pixels = NDArray[np.uint8]
"""Rows x columns x RGB."""
Linear = NDArray[np.uint16]
"""Rows x columns x RGB, linear light."""
_FULL = 65_535
_LINEAR_LIGHT: Linear = np.round(srgb_light(np.arange(256) / 255) * _FULL).astype(np.uint16)

_STEPPED = 10_000
"""Pixels of a scale above which every other one in both directions is compared. This saves half of the comparing and
moves scores by 0.06 points (root mean square; at most 0.2)."""
_TAPS, _SIGMA = 9, 1.52
"""The Gaussian in place of the original's recursive one, whose sigma is 1.5. Scores differ by 0.09 points from those of
the Rust crate `ssimulacra2` (root mean square, 168 files); with 11 taps of 1.5 by 0.15, in a quarter more time."""
_SIGMA_OF_STEPS = 0.581
"""Of 3 taps at every other pixel, which after OpenCV's `pyrDown` (variance 1) come to about the same Gaussian."""
_C2 = np.float32(0.0009)
_BIAS = 0.0037930732552754493
_OPSIN = np.array(
    [[0.30, 0.622, 0.078, _BIAS], [0.23, 0.692, 0.078, _BIAS],
     [0.24342268924547819, 0.20476744424496821, 0.5518098665095536, _BIAS]]
)  # fmt: skip
_LARGEST = 1 + _BIAS
"""Opsin response to white."""
_OPSIN *= [1 / _LARGEST] * 3 + [_FULL / _LARGEST]
"""Linear RGB of 16 bits (and 1) to opsin responses of 16 bits."""
_CUBE_ROOTS: Plane = np.cbrt(np.arange(_FULL + 1) / _FULL * _LARGEST).astype(np.float32)
_ROOT = _BIAS ** (1 / 3)
_TO_YXB = np.array([[0.5, 0.5, 0.0, 0.01 - _ROOT], [7.0, -7.0, 0.0, 0.42], [-0.5, -0.5, 1.0, 0.55]], dtype=np.float32)
"""Cube roots of the responses (and 1) to Y + 0.01, 14 X + 0.42 and B - Y + 0.55, which are positive."""
_WEIGHTS = np.zeros((3, 5, 2, 3))
"""Channel (Y, X, B), scale, norm (mean, 4-norm), map (ssim, artefacts, lost detail); in ssimulacra2.cc X is the first.
Its weights below 0.003 move no score by 0.01. Leaving out what they weigh saves half of the work, and a sixth scale."""
for _place, _of_maps in {
    (1, 1, 1): (1.1041726426657346, 0, 0),
    (1, 2, 1): (1.8422455520539298, 11.441172603757666, 0),
    (1, 3, 1): (1.8787594979546387, 10.94906990605142, 0),
    (1, 4, 0): (0, 0.9677937080626833, 0),
    (1, 4, 1): (0, 0.9981766977854967, 0),
    (0, 0, 1): (7.466890328078848, 0, 17.445833984131262),
    (0, 1, 1): (6.683678146179332, 0, 1.027889937768264),
    (0, 2, 0): (225.20515300849274, 0, 0),
    (0, 2, 1): (19.213238186143016, 0, 0),
    (0, 3, 0): (176.39317598450694, 0, 0),
    (0, 3, 1): (24.43300999870476, 0.28520802612117757, 0),
    (0, 4, 1): (34.77906344483772, 44.835625328877896, 0),
    (2, 3, 1): (8.826982764996862, 23.19243343998926, 0),
    (2, 4, 0): (95.1080498811086, 0.9863978034400682, 0.9834382792465353),
    (2, 4, 1): (0, 171.2667255897307, 0.9807858872435379),
}.items():
    _WEIGHTS[_place] = _of_maps
_CHANNELS = (1, 2, 2, 3, 3)
"""Channels with a weight, at each scale."""


class Reference:
    """An original (RGB), prepared once for any number of scores against it."""

    def __init__(self, image: Image.Image | Pixels) -> None:
        self._scales = [_of_original(xyb) for xyb in _pyramid(np.asarray(image))]

    def score(self, image: Image.Image | Pixels) -> float:
        """The score of a distorted version, RGB of the same size; 100 for none, 90 visually lossless, below 30 poor."""
        pairs = zip(self._scales, _pyramid(np.asarray(image)), strict=True)
        return _points(
            sum(
                _compared(one, other, _WEIGHTS[:channels, scale])
                for scale, (channels, (one, other)) in enumerate(zip(_CHANNELS, pairs, strict=False))
            )
        )


@dataclass(frozen=True, slots=True)
class _Scale:
    """What every comparison needs of the original, at one scale; all but `xyb` at the places of comparison."""

    xyb: Plane
    mean: Plane
    variance: Plane
    """Plus the constant that the similarity has in its denominator."""
    edge: Plane
    """1 / (1 + distance from the local mean)."""


def _is_stepped(plane: Plane) -> bool:
    return int(plane.shape[0] * plane.shape[1]) > _STEPPED


def _places(plane: Plane) -> Plane:
    """The pixels that are compared: all, or every other one in both directions."""
    return np.ascontiguousarray(plane[::2, ::2]) if _is_stepped(plane) else plane


def _blurred(plane: Plane) -> Plane:
    """The local means of a plane, at the places of comparison."""
    if _is_stepped(plane):
        return _gaussian(cv2.pyrDown(plane), 3, _SIGMA_OF_STEPS)
    return _gaussian(plane, _TAPS, _SIGMA)


def _of_original(xyb: Plane) -> _Scale:
    mean, square = _blurred(xyb), _blurred(xyb * xyb)
    return _Scale(xyb, mean, square - mean * mean + _C2, 1 / (1 + np.abs(_places(xyb) - mean)))


def _compared(one: _Scale, xyb: Plane, weights: NDArray[np.float64]) -> float:
    """The weighted errors of one scale.

    With x and y for the two pictures, m for local means and d = m(y - x), the similarity's numerator is its denominator
    less m((y - x)^2) - d^2, so its error is d^2 + (1 - d^2) * (m((y - x)^2) - d^2) / (both variances + C2): never
    negative, and without what the two have in common.

    The planes are reused in place: fresh memory for each step would take three times as long as the arithmetic.

    Args:
        weights: channels x (mean, 4-norm) x (ssim, artefacts, lost detail).
    """
    difference = xyb - one.xyb
    shift = _blurred(difference)
    error = _blurred(np.multiply(difference, difference, out=difference))
    variances = _blurred(np.multiply(xyb, xyb, out=difference))
    mean = one.mean + shift
    work = np.empty_like(mean)
    variances -= np.multiply(mean, mean, out=work)
    variances += one.variance
    np.multiply(shift, shift, out=shift)
    error -= shift
    error /= variances
    error *= np.subtract(1, shift, out=work)
    error += shift
    total = _weighted(error, weights[..., 0], work)
    # edges > 0 where the distorted picture has edges that the original lacks, < 0 where it lost some
    edges = np.subtract(_places(xyb), mean, out=mean)
    np.abs(edges, out=edges)
    edges += 1
    edges *= one.edge
    edges -= 1
    if weights[..., 1].any():
        total += _weighted(_positive(edges, error), weights[..., 1], work)
    if weights[..., 2].any():
        total += _weighted(_positive(np.negative(edges, out=edges), error), weights[..., 2], work)
    return total


def _positive(plane: Plane, out: Plane) -> Plane:
    """The plane with negative values set to 0; four times as fast as NumPy's maximum, which handles NaN."""
    cv2.threshold(plane, 0, 0, cv2.THRESH_TOZERO, dst=out)
    return out


def _weighted(error: Plane, weights: NDArray[np.float64], work: Plane) -> float:
    """The weighted sum of an error map's norms; weights are channels x (mean, 4-norm)."""
    channels, total = len(weights), 0.0
    if weights[:, 0].any():
        total += float(np.dot(cv2.mean(error)[:channels], weights[:, 0]))
    if weights[:, 1].any():
        np.multiply(error, error, out=work)
        work *= work
        total += float(np.dot(np.array(cv2.mean(work)[:channels]) ** 0.25, weights[:, 1]))
    return total


def _points(total: float) -> float:
    """The sum of all weighted errors as a score."""
    total *= 0.9562382616834844
    total = 2.326765642916932 * total - 0.020884521182843837 * total**2 + 6.248496625763138e-05 * total**3
    return 100.0 - 10.0 * total**0.6276336467831387 if total > 0 else 100.0


def _pyramid(pixels: Pixels) -> list[Plane]:
    """The needed channels at full size, 1/2, 1/4 ... as long as a side has at least 8 pixels.

    Halving is done in linear light of 16 bits, which is half the memory of float32 and moves no score by 0.01.
    """
    linear = np.asarray(cv2.LUT(pixels, _LINEAR_LIGHT), dtype=np.uint16)
    scales: list[Plane] = []
    for channels in _CHANNELS:
        if scales:
            linear = _halved(linear)
        if min(linear.shape[:2]) < 8:
            break
        scales.append(_yxb(linear, channels))
    return scales


def _halved(linear: Linear) -> Linear:
    """Averages of 2x2; an odd last row or column is doubled first. Linear interpolation computes just that, four times
    as fast as OpenCV's area interpolation."""
    rows, columns = linear.shape[:2]
    if rows % 2 or columns % 2:
        linear = np.asarray(cv2.copyMakeBorder(linear, 0, rows % 2, 0, columns % 2, cv2.BORDER_REPLICATE), np.uint16)
    size = (linear.shape[1] // 2, linear.shape[0] // 2)
    return np.asarray(cv2.resize(linear, size, interpolation=cv2.INTER_LINEAR), dtype=np.uint16)


def _yxb(linear: Linear, channels: int) -> Plane:
    """The first channels of Y, X, B. OpenCV is fast only if it computes three or one. Cube roots of responses of 16
    bits come from a table, in a third of the time that OpenCV's power takes; scores move by 0.01 (at most 0.09)."""
    roots = cv2.LUT(cv2.transform(linear, _OPSIN), _CUBE_ROOTS)
    if channels == len(_TO_YXB):
        return np.asarray(cv2.transform(roots, _TO_YXB), dtype=np.float32)
    planes = [cv2.transform(roots, _TO_YXB[channel : channel + 1]) for channel in range(channels)]
    return np.asarray(cv2.merge(planes), dtype=np.float32)


def _gaussian(plane: cv2.typing.MatLike, taps: int, sigma: float) -> Plane:
    return np.asarray(cv2.GaussianBlur(plane, (taps, taps), sigma, borderType=cv2.BORDER_CONSTANT), dtype=np.float32)
