"""OpenCV, on one thread: the other cores have images of their own.

With a thread for each core, OpenCV's default, a score of a small picture takes 1.6 times its CPU time on four
cores: waiting for each other costs the threads more than what they share.
"""

from __future__ import annotations

import cv2

__all__ = ["cv2"]

cv2.setNumThreads(1)
