"""The fewest bytes that so many pixels can take: a shorter file is incomplete, yet all its pixels would be allocated.

Only formats that have such a bound are here. WebP, AVIF, JPEG XL and CCITT's fax codes have none that a real file does
not come near: libwebp writes 16.8 megapixels of one colour in 38 bytes (lossless, method 0), OpenCV's libaom 49 in
1,536, libtiff a blank page of 49 in 3,630. Asking more of them would refuse plain pictures and cost a stranger
nothing, who can append what he likes.
"""

from __future__ import annotations

from typing import Any

from PIL import ExifTags, Image, ImageFile, TiffImagePlugin

from imgpipe_orchestration.errors import BadImage
from imgpipe_orchestration.imaging.limits import Limits
from imgpipe_orchestration.imaging.reading.png_chunks import CHANNELS, content_of

_DEFLATE = 1032
"""Bytes out of one: 258 of them take two bits at least (https://zlib.net/zlib_tech.html)."""
_JPEG = 512
"""Pixels a byte: each block of 8x8 has a bit at least. What lacks would be filled with grey, and silently."""
_GIF = 2730
"""Pixels a byte: a code of 12 bits stands for a string of the table, and none is longer than its 4,094 entries."""
_BMP_RUNS = 127.5
"""Pixels a byte: a run has two bytes and at most 255 pixels. More can only be skipped."""
_EMPTY = frozenset({_GIF, _BMP_RUNS})
"""A GIF's frame may cover little of its canvas, and a BMP in runs may skip: honestly so in small ones."""
_TIFF = {1: 1, 5: 2000, 7: 2000, 8: 2000, 32773: 2000, 32946: 2000, 34925: 7200, 50000: 33_000}
"""Bytes out of one: as they are; by LZW, JPEG, deflate and PackBits (all less than that); by LZMA, where 273 of them
take 14 choices of 0.022 bits; by Zstandard, where a block of 128 KB takes four (RFC 8878, 3.1.1.2)."""
_Tag = ExifTags.Base
_YCBCR = 6


def check_length(image: Image.Image, name: str, data: bytes, limits: Limits) -> None:
    """Refuse an image of fewer bytes than its pixels need. `image` is opened and not decoded.

    Raises:
        BadImage: names bytes and pixels.
    """
    pixels = image.width * image.height
    most = _pixels_a_byte(image, name, data)
    may_be_empty = most in _EMPTY
    if not most or pixels <= most * len(data) or (may_be_empty and pixels <= limits.empty_pixels):
        return
    reason, advice = ("almost empty", "save it in fewer pixels") if may_be_empty else ("cut short", "save it anew")
    size = f"{image.width}x{image.height} pixels"
    raise BadImage(f"the {name} is {reason}: {len(data):,} bytes cannot hold {size}; {advice}")


def _pixels_a_byte(image: Image.Image, name: str, data: bytes) -> float | None:
    """Pixels that a byte of the file can stand for at most; None where there is no bound."""
    if name == "jpeg":
        return _JPEG
    if name == "gif":
        return _GIF
    if isinstance(image, ImageFile.ImageFile) and name == "bmp":
        rows: Any = image.tile[0]
        return _BMP_RUNS if rows.codec_name == "bmp_rle" else image.width / rows.args[1]  # bytes of a row
    if name == "png":
        depth, kind = content_of(data, b"IHDR")[8:10]
        return _DEFLATE * 8 / (depth * CHANNELS[kind])
    if isinstance(image, TiffImagePlugin.TiffImageFile) and (most := _TIFF.get(image.tag_v2.get(_Tag.Compression, 1))):
        bits, samples = image.tag_v2.get(_Tag.BitsPerSample, (1,)), image.tag_v2.get(_Tag.SamplesPerPixel, 1)
        if image.tag_v2.get(_Tag.PhotometricInterpretation) == _YCBCR:
            samples = 1  # of its own; up to 16 pixels share their colours
        return most * 8 / float(max(max(bits) * samples, 1))
    return None
