"""Memory reused from one picture to the next. Fresh pages from the system cost as much as the writing to them."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache

from PIL import Image

_BLOCKS = 8
"""Of 16 MB each, Pillow's own size; a picture of six megapixels takes two."""
_KEPT = 128 * 1024**2
"""Bytes that a heap may keep free. Rendering six megapixels uses and frees 110 MB."""
_LARGEST_ON_HEAP = 32 * 1024**2
"""Bytes from which an allocation gets pages of its own; glibc allows no more."""
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3


@contextmanager
def reused() -> Iterator[None]:
    """Let pictures take the memory of those before them, in Pillow within the context and in the C library for good.

    Pillow returns memory to the system at once, which is 20 ms of a decoding of six megapixels
    (https://pillow.readthedocs.io/en/stable/reference/block_allocator.html), and so do all other codecs above 128 kB,
    which is 50 ms of a rendering, more on two threads: the system serves the pages of one process one after the other.
    """
    _keep_freed_memory()
    Image.core.set_blocks_max(_BLOCKS)  # type: ignore[attr-defined]
    try:
        yield
    finally:
        Image.core.set_blocks_max(0)  # type: ignore[attr-defined]


@lru_cache(maxsize=1)
def _keep_freed_memory() -> None:
    """Have malloc keep what was freed (https://man7.org/linux/man-pages/man3/mallopt.3.html). Only glibc can."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _LARGEST_ON_HEAP)
        mallopt(_M_TRIM_THRESHOLD, _KEPT)
