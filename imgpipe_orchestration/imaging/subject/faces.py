"""Faces, found locally."""

from pathlib import Path
from threading import local

import numpy as np
from PIL import Image

from imgpipe_orchestration.imaging.geometry import Box
from imgpipe_orchestration.imaging.opencv import cv2

_LONG_SIDE, SHORT_SIDE = 320, 240
"""Sides, pixels, of the picture that is searched; the one that gives the larger picture counts. By the long side alone,
faces in very tall and wide pictures would be too small."""
_SMALLEST_FACE = 0.08
"""Share of the shorter side. Smaller faces are not the subject, and most false positives are small."""
_LEAST_WEIGHT = 3.0
"""Weight of the cascade's last stage below which a detection is as often a texture as a face."""
_MARGIN = 0.35
"""Margin around a detected face that the second cascade sees, as a share of the face's size."""
_CLOSE_UP, _FILLS = 128, 45
"""Side, pixels, of the square that the second cascade searches, and of the smallest face in it."""


def find_faces(image: Image.Image) -> tuple[Box, ...]:
    """Frontal faces, largest first (Viola-Jones with OpenCV's own trained cascades; 5 to 25 ms).

    A second cascade, trained differently, must confirm each of them: a single one sees faces in craters.
    """
    scale = min(1.0, max(_LONG_SIDE / max(image.size), SHORT_SIDE / min(image.size)))
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    if min(size) < 24:
        return ()
    grey = np.asarray(image.convert("L").resize(size, Image.Resampling.BILINEAR))
    smallest = max(20, round(min(size) * _SMALLEST_FACE))
    found, _, weights = _cascade("default").detectMultiScale3(
        cv2.equalizeHist(grey),
        scaleFactor=1.1,
        minNeighbors=6,
        minSize=(smallest, smallest),
        outputRejectLevels=True,
    )
    boxes = [
        Box.of_pixels((x, y, x + w, y + h), *size)
        for (x, y, w, h), weight in zip(found, np.ravel(weights), strict=True)
        if weight > _LEAST_WEIGHT
    ]
    boxes = [box for box in boxes if _is_confirmed(image, box)]
    return tuple(sorted(boxes, key=lambda box: box.area, reverse=True))


def _is_confirmed(image: Image.Image, box: Box) -> bool:
    across, down = _MARGIN * (box.right - box.left), _MARGIN * (box.bottom - box.top)
    around = Box(box.left - across, box.top - down, box.right + across, box.bottom + down)
    width, height = image.size
    pixels = (around.left * width, around.top * height, around.right * width, around.bottom * height)
    close_up = image.convert("L").resize((_CLOSE_UP, _CLOSE_UP), Image.Resampling.BICUBIC, box=pixels)
    found = _cascade("alt2").detectMultiScale(
        cv2.equalizeHist(np.asarray(close_up)), scaleFactor=1.05, minNeighbors=2, minSize=(_FILLS, _FILLS)
    )
    return len(found) > 0


_OF_THREAD = local()


def _cascade(name: str) -> cv2.CascadeClassifier:
    """A trained cascade; each thread has its own, because a detection uses the object as work space."""
    cascades: dict[str, cv2.CascadeClassifier] = _OF_THREAD.__dict__.setdefault("cascades", {})
    if name not in cascades:
        folder = Path(cv2.__file__).parent / "data"
        cascades[name] = cv2.CascadeClassifier(str(folder / f"haarcascade_frontalface_{name}.xml"))
    return cascades[name]
