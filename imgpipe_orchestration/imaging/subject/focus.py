"""Where the subject of an image is, and how that was decided."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from imgpipe_orchestration.imaging.colour import flattened
from imgpipe_orchestration.imaging.geometry import WHOLE, Box, fit_within, union
from imgpipe_orchestration.imaging.opencv import cv2, lab_of
from imgpipe_orchestration.imaging.subject.faces import SHORT_SIDE, find_faces

Reason = Literal[
    "manual", "faces", "logo", "text", "crop hint", "local faces", "objects", "plain ground", "saliency", "centre"
]

_MATTERS = 0.25
"""A face or an object smaller than this share of the largest one is in the background."""
_AIR = 0.05
"""Room above an object, as a share of its height, so that a crop does not touch its rim."""
_LOOKED_AT = 512
_WHOLE_SIDE = 0.98
"""Share of a side from which a crop hint takes it up whole: providers round to pixels, and trim a frame."""


@dataclass(frozen=True)
class FocusHints:
    """What is already known about the subject: boxes in fractions of the upright image."""

    manual: Box | None = None
    """Set by hand: it wins over everything."""
    faces: tuple[Box, ...] = ()
    crop_hints: tuple[Box, ...] = ()
    text: tuple[Box, ...] = ()
    logos: tuple[Box, ...] = ()
    objects: tuple[Box, ...] = ()


@dataclass(frozen=True)
class FocalBox:
    """The subject. Crops are centred on `box` and hold `core` wherever they are large enough for it."""

    box: Box
    reason: Reason
    core: Box


def find_focus(image: Image.Image, hints: FocusHints | None = None, mark: Box | None = None) -> FocalBox:
    """Decide where the subject is, from the most reliable evidence there is.

    That is a person's choice; then a logo's mark; then faces, logos and text that an analysis found (a crop through any
    of them is clearly wrong); then faces found here; then the objects of the analysis, or else its crop hint, which is
    a guess. Without any hint the image is searched: for faces, for an object on a plain background, and by saliency;
    also along a side that a crop hint takes up whole, of which it says nothing.

    Args:
        mark: all that a logo is drawn of.
    """
    hints = hints or FocusHints()
    if certain := hints.manual or mark:
        return FocalBox(certain, "manual" if hints.manual else "plain ground", certain)
    if hints.faces:
        return _around_faces(hints.faces, "faces")
    if hints.logos:
        return FocalBox(union(hints.logos), "logo", max(hints.logos, key=lambda box: box.area))
    if hints.text:
        return FocalBox(union(hints.text), "text", max(hints.text, key=lambda box: box.area))
    if hints.crop_hints and not hints.objects:
        return _hinted(image, hints.crop_hints[0])
    return _found_here(image, hints.objects)


def _hinted(image: Image.Image, hint: Box) -> FocalBox:
    wide, tall = (end - start > _WHOLE_SIDE for start, end in ((hint.left, hint.right), (hint.top, hint.bottom)))
    if not wide and not tall:
        return FocalBox(hint, "crop hint", hint)
    found = _found_here(image)
    if wide and tall:
        return found

    def along_it(box: Box) -> Box:
        across, down = (box, hint) if wide else (hint, box)
        return Box(across.left, down.top, across.right, down.bottom)

    return FocalBox(along_it(found.box), "crop hint", along_it(found.core))


def _around_faces(faces: tuple[Box, ...], reason: Reason) -> FocalBox:
    """All faces but small ones in the background; the largest must not be cut."""
    largest = max(faces, key=lambda box: box.area)
    return FocalBox(union(f for f in faces if f.area >= _MATTERS * largest.area), reason, largest)


def _found_here(image: Image.Image, objects: tuple[Box, ...] = ()) -> FocalBox:
    size = fit_within(*image.size, _LOOKED_AT, _LOOKED_AT)
    opaque = flattened(image)  # the colours of transparent pixels are any
    small = opaque.resize(size, Image.Resampling.BOX, reducing_gap=1.0)
    if faces := find_faces(_tall_enough(opaque, small)):
        return _around_faces(faces, "local faces")
    if objects:
        largest = max(objects, key=lambda box: box.area)
        shown = union(one for one in objects if one.area >= _MATTERS * largest.area)
        air = _AIR * (largest.bottom - largest.top)
        airy = Box(largest.left, largest.top - air, largest.right, largest.bottom)
        return FocalBox(shown, "objects", _upper_half(airy))
    if box := _box_on_plain_background(small):
        return FocalBox(box, "plain ground", _upper_half(box))
    if box := _salient_box(small):
        return FocalBox(box, "saliency", box)
    return FocalBox(WHOLE, "centre", WHOLE)


def _tall_enough(image: Image.Image, small: Image.Image) -> Image.Image:
    """`small`, or a larger version of a panorama, whose faces would otherwise be too small to be found."""
    if min(small.size) >= SHORT_SIDE:
        return small
    scale = min(1.0, SHORT_SIDE / min(image.size))
    return image.resize((max(1, round(image.width * scale)), max(1, round(image.height * scale))), reducing_gap=1.0)


def _upper_half(box: Box) -> Box:
    """What a crop that is too flat for the whole subject should show: heads are at the top."""
    return Box(box.left, box.top, box.right, (box.top + box.bottom) / 2)


_SIDE = 128
_PLAIN = 10.0
"""Lab distance from the border's colour up to which a pixel is background (2.3 is just noticeable)."""
_MOSTLY = 0.85
"""Share of the border that must be background; the object may touch an edge."""
_SPECK = 0.002
"""Share of the picture below which a patch is dust."""


def _box_on_plain_background(image: Image.Image) -> Box | None:
    """The box around everything that is not background; None where the border is not plain, or there is no object."""
    small = image.resize((_SIDE, _SIDE), Image.Resampling.BOX)
    lab = lab_of(np.asarray(small))
    border = np.concatenate([lab[:2].reshape(-1, 3), lab[-2:].reshape(-1, 3), lab[:, 0], lab[:, -1]])
    background = np.median(border, axis=0)
    if float((np.linalg.norm(border - background, axis=1) < _PLAIN).mean()) < _MOSTLY:
        return None
    return _around_patches(np.linalg.norm(lab - background, axis=2) >= _PLAIN)


def _around_patches(differs: NDArray[np.bool_]) -> Box | None:
    """The box around all connected patches but specks of dust; None where there are none."""
    _, _, stats, _ = cv2.connectedComponentsWithStats(differs.astype(np.uint8), connectivity=8)
    patches = [(x, y, x + w, y + h) for x, y, w, h, area in stats[1:].tolist() if area >= _SPECK * _SIDE**2]
    return union(Box.of_pixels(patch, _SIDE, _SIDE) for patch in patches) if patches else None


_SEEN_AT = 64
_KEPT = 0.6
"""Share of all saliency that the box must hold."""


def _salient_box(image: Image.Image) -> Box | None:
    """The box that holds most of the saliency; None where nothing stands out (a plain or evenly textured image).

    Spectral residual (Hou and Zhang 2007) at 64x64, times a mild preference for the centre; about 1 ms.
    """
    grey = np.asarray(image.convert("L").resize((_SEEN_AT, _SEEN_AT), Image.Resampling.BOX), dtype=np.float32)
    if float(grey.std()) < 1.0:
        return None
    line = np.linspace(-1, 1, _SEEN_AT, dtype=np.float32)
    towards_centre = np.asarray(1 - 0.35 * np.minimum(1, line[None, :] ** 2 + line[:, None] ** 2), dtype=np.float32)
    saliency = _spectral_residual(grey) * towards_centre
    saliency = np.maximum(saliency - np.median(saliency), 0)
    total = float(saliency.sum())
    if total <= 0:
        return None
    left, right = _densest_run(saliency.sum(axis=0), total)
    top, bottom = _densest_run(saliency.sum(axis=1), total)
    return Box(left / _SEEN_AT, top / _SEEN_AT, right / _SEEN_AT, bottom / _SEEN_AT)


def _spectral_residual(grey: NDArray[np.float32]) -> NDArray[np.float32]:
    """The saliency map: the log amplitude spectrum minus its local average, transformed back into the image."""
    spectrum = np.fft.fft2(grey)
    log_amplitude = np.log(np.abs(spectrum) + 1e-6).astype(np.float32)
    residual = log_amplitude - cv2.blur(log_amplitude, (3, 3))
    back = np.fft.ifft2(np.exp(residual + 1j * np.angle(spectrum)))
    return np.asarray(cv2.GaussianBlur((np.abs(back) ** 2).astype(np.float32), (0, 0), 2.5), dtype=np.float32)


def _densest_run(line: NDArray[np.float32], total: float) -> tuple[int, int]:
    """Start and end of the shortest run that holds the share `_KEPT` of `total`."""
    sums = np.concatenate(([0.0], np.cumsum(line)))
    ends = np.searchsorted(sums, sums[:-1] + _KEPT * total - 1e-9)
    lengths = np.where(ends < len(sums), ends - np.arange(len(line)), len(line) + 1)
    start = int(np.argmin(lengths))
    return start, start + int(lengths[start])
