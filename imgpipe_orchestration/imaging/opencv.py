"""OpenCV on one thread; other cores have images of their own.

With OpenCV's default, a thread for each core, scoring a small picture on four cores takes 1.6 times the CPU time:
the threads spend more on waiting for each other than they save.
"""

import cv2
import numpy as np
from numpy.typing import NDArray

__all__ = ["cv2", "lab_of"]

cv2.setNumThreads(1)


def lab_of(rgb: NDArray[np.uint8]) -> NDArray[np.float32]:
    """CIE Lab of sRGB pixels, rows x columns x channels."""
    return np.asarray(cv2.cvtColor(rgb.astype(np.float32) / 255, cv2.COLOR_RGB2LAB), dtype=np.float32)


# The first conversion makes OpenCV's tables, which takes 0.1 s: here the fork server makes them for all its workers.
lab_of(np.zeros((1, 1, 3), np.uint8))
