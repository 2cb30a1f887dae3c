"""Whether a picture is in focus."""

from __future__ import annotations

import numpy as np
from PIL import Image

from imgpipe_orchestration.imaging.opencv import cv2

_GRID = 8


def sharpness(image: Image.Image) -> float:
    """0 (nothing sharp anywhere) to 1 (crisp detail), of the sharpest tenth of the picture.

    The standard deviation of the Laplacian is taken per tile of an 8x8 grid, and only the sharpest tiles count: a
    portrait with a soft background is a sharp picture. It is mapped by x / (x + 12); 12 grey levels are what a barely
    acceptable photograph of 512 px has.
    """
    grey = np.asarray(image.convert("L"), dtype=np.float32)
    if min(grey.shape) < _GRID:
        return 0.0
    edges = cv2.Laplacian(cv2.GaussianBlur(grey, (0, 0), 0.7), cv2.CV_32F)
    rows, columns = (length // _GRID * _GRID for length in edges.shape)
    tiles = edges[:rows, :columns].reshape(_GRID, rows // _GRID, _GRID, columns // _GRID)
    best = np.sort(tiles.std(axis=(1, 3)).ravel())[-_GRID * _GRID // 10 :]
    deviation = float(best.mean())
    return round(deviation / (deviation + 12.0), 4)
