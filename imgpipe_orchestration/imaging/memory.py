"""Pillow's memory for pixels."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from PIL import Image

_BLOCKS = 8
"""Of 16 MB each, Pillow's own size; a picture of six megapixels takes two."""


@contextmanager
def reused() -> Iterator[None]:
    """Let pictures take the memory of those before them, and give all of it back in the end.

    Pillow returns memory to the system at once, and fresh pages cost as much as what is written to them: 20 ms of a
    decoding of six megapixels. (https://pillow.readthedocs.io/en/stable/reference/block_allocator.html)
    """
    Image.core.set_blocks_max(_BLOCKS)  # type: ignore[attr-defined]
    try:
        yield
    finally:
        Image.core.set_blocks_max(0)  # type: ignore[attr-defined]
