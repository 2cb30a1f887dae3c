"""OpenCV on one thread; other cores have images of their own.

With OpenCV's default, a thread for each core, scoring a small picture on four cores takes 1.6 times the CPU time:
the threads spend more on waiting for each other than they save.
"""

from __future__ import annotations

import cv2

__all__ = ["cv2"]

cv2.setNumThreads(1)
