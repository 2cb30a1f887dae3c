"""Memory reused from one picture to the next: getting fresh pages from the system costs as much as writing to them."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache

from PIL import Image

_BLOCKS = 8
"""Blocks that Pillow keeps, of 16 MB each (its default size); a picture of six megapixels takes two."""
_KEPT = 128 * 1024**2
"""Free bytes that the heap may keep. Rendering six megapixels uses and frees 110 MB."""
_LARGEST_ON_HEAP = 32 * 1024**2
"""Bytes from which an allocation gets pages of its own instead of heap memory; glibc allows no more."""
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3


@contextmanager
def reused() -> Iterator[None]:
    """Reuse the memory of earlier pictures: in Pillow within the context, in the C library from then on.

    By default Pillow returns memory to the system at once, which takes 20 ms of decoding six megapixels
    (https://pillow.readthedocs.io/en/stable/reference/block_allocator.html). So does malloc above 128 kB, for all other
    codecs, which takes 50 ms of a rendering and more on two threads, as a process gets its pages one after the other.
    """
    _keep_freed_memory()
    Image.core.set_blocks_max(_BLOCKS)  # type: ignore[attr-defined]
    try:
        yield
    finally:
        Image.core.set_blocks_max(0)  # type: ignore[attr-defined]


@lru_cache(maxsize=1)
def _keep_freed_memory() -> None:
    """Make malloc keep freed memory (https://man7.org/linux/man-pages/man3/mallopt.3.html); only glibc can."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _LARGEST_ON_HEAP)
        mallopt(_M_TRIM_THRESHOLD, _KEPT)
