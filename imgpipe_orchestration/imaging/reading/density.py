"""The fewest bytes that so many pixels can take: a shorter file is incomplete, yet all its pixels would be allocated.

WebP and CCITT fax codes have no useful bound, because honest files get very small: libwebp writes 16.8 megapixels of
one colour in 38 bytes (lossless, method 0), and libtiff a blank page of 49 megapixels in 3,630. A bound would refuse
such pictures, and an attacker could just append bytes.
"""

from __future__ import annotations

from typing import Any

from PIL import ExifTags, Image, ImageFile, TiffImagePlugin

from imgpipe_orchestration.errors import BadImage
from imgpipe_orchestration.imaging.limits import Limits
from imgpipe_orchestration.imaging.reading.png_chunks import CHANNELS, content_of

_DEFLATE = 1032
"""Largest compression ratio: 258 bytes take at least two bits (https://zlib.net/zlib_tech.html)."""
_JPEG = 512
"""Pixels per byte: each block of 8x8 takes at least a bit. libjpeg silently fills missing pixels with grey."""
_GIF = 2730
"""Pixels per byte: a code of 12 bits stands for a string of the table, and none is longer than its 4,094 entries."""
_AVIF = 40_000
"""Pixels per byte that honest files stay below. One may claim more than it codes, and is enlarged as it is decoded."""
_TIFF = {1: 1, 5: 2000, 7: 2000, 8: 2000, 32773: 2000, 32946: 2000, 34925: 7200, 50000: 33_000}
"""Compression ratios that are never exceeded, by the tag Compression: none; LZW, JPEG, deflate and PackBits; LZMA,
where 273 bytes take 14 choices of 0.022 bits; Zstandard, where a block of 128 KB takes four bytes (RFC 8878,
3.1.1.2)."""
_Tag = ExifTags.Base
_YCBCR = 6


def check_length(image: Image.Image, name: str, data: bytes, limits: Limits) -> None:
    """Refuse an image of fewer bytes than its pixels need. `image` is opened and not decoded.

    Raises:
        BadImage: names bytes and pixels.
    """
    pixels = image.width * image.height
    most = _pixels_a_byte(image, name, data)
    may_be_empty = name == "gif"  # its frame may cover little of its canvas, as small honest files do
    if not most or pixels <= most * len(data) or (may_be_empty and pixels <= limits.empty_pixels):
        return
    reason, advice = ("almost empty", "save it in fewer pixels") if may_be_empty else ("cut short", "save it anew")
    size = f"{image.width}x{image.height} pixels"
    raise BadImage(f"the {name} is {reason}: {len(data):,} bytes cannot hold {size}; {advice}")


def _pixels_a_byte(image: Image.Image, name: str, data: bytes) -> float | None:
    """The most pixels that a byte of the file can code; None where there is no bound."""
    if fixed := {"jpeg": _JPEG, "gif": _GIF, "avif": _AVIF}.get(name):
        return fixed
    if isinstance(image, ImageFile.ImageFile) and name == "bmp":
        rows: Any = image.tile[0]
        return float(image.width / rows.args[1])  # bytes of a row
    if name == "png":
        depth, kind = content_of(data, b"IHDR")[8:10]
        return _DEFLATE * 8 / (depth * CHANNELS[kind])
    if isinstance(image, TiffImagePlugin.TiffImageFile) and (most := _TIFF.get(image.tag_v2.get(_Tag.Compression, 1))):
        bits, samples = image.tag_v2.get(_Tag.BitsPerSample, (1,)), image.tag_v2.get(_Tag.SamplesPerPixel, 1)
        if image.tag_v2.get(_Tag.PhotometricInterpretation) == _YCBCR:
            samples = 1  # luma; up to 16 pixels share their chroma
        return most * 8 / float(max(max(bits) * samples, 1))
    return None
