"""PNGs whose pixels end before the last row. Pillow silently leaves the missing rows black."""

from __future__ import annotations

import zlib
from collections.abc import Iterator

from PIL import Image

from imgpipe_orchestration.imaging.reading.png_chunks import CHANNELS, chunks, content_of

_PASSES = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
"""Adam7: first column and row, and steps to the next ones."""
_AT_ONCE = 1 << 20


def lacks_rows(image: Image.Image, data: bytes) -> bool:
    """Whether a decoded PNG has fewer pixels than its size says.

    Checked only where one of its last two rows is black: the last pixels of a file, interlaced or not, are in them.
    """
    width, height = image.size
    last = (image.crop((0, top, width, top + 1)).tobytes() for top in range(max(height - 2, 0), height))
    return not all(map(any, last)) and _unpacked(data, most := sum(_lengths(data))) < most


def _lengths(data: bytes) -> Iterator[int]:
    """Unpacked bytes of each pass: rows, each with a filter byte before it."""
    head = content_of(data, b"IHDR")
    width, height, bits = int.from_bytes(head[:4]), int.from_bytes(head[4:8]), head[8] * CHANNELS[head[9]]
    for left, top, across, down in _PASSES if head[12] else ((0, 0, 1, 1),):
        columns, rows = -(-(width - left) // across), -(-(height - top) // down)
        if columns > 0 and rows > 0:
            yield rows * (1 + (columns * bits + 7) // 8)


def _unpacked(data: bytes, most: int) -> int:
    """Bytes that the pixels unpack to, counted up to `most`."""
    unpacking, found = zlib.decompressobj(), 0
    for kind, start, end in chunks(data):
        packed = data[start:end] if kind == b"IDAT" else b""
        while packed and found < most and not unpacking.eof:
            found += len(unpacking.decompress(packed, min(_AT_ONCE, most - found)))
            packed = unpacking.unconsumed_tail
    return found
