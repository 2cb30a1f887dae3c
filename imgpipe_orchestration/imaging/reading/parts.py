"""What files are made of (a JPEG's segments, a PNG's chunks, a TIFF's directory, a GIF's blocks, a WebP's chunks), read
without a decoder, and limits on how many there may be.

Pillow runs a Python loop over them, so 5 MB of empty parts cost a second and 150 MB before a pixel is decoded.
"""

import re
import zlib
from collections.abc import Iterator
from itertools import islice, takewhile
from typing import Literal

from imgpipe_orchestration.errors import BadImage, TooLarge
from imgpipe_orchestration.imaging import limits

_BYTES_OF_A_GIF_BLOCK = 256
_BYTES_OF_A_PART = 1024
"""Those of other formats seldom have fewer than 4,096: what is smaller is counted among the `limits.MAX_PARTS`."""


def check_parts(data: bytes, name: str) -> None:
    """Refuse a file with far more parts than a picture of its length needs. Counting stops at the limit.

    Raises:
        TooLarge: past the limit, which the message names.
    """
    walk = {"jpeg": _segments, "png": chunks, "gif": _gif_blocks, "webp": _webp_chunks}.get(name)
    most = limits.MAX_PARTS + len(data) // (_BYTES_OF_A_GIF_BLOCK if name == "gif" else _BYTES_OF_A_PART)
    if walk and next(islice(walk(data), most, None), None) is not None:
        raise TooLarge(f"the {name} is cut into more than {most:,} parts, which no picture of its length needs")
    if name == "jpeg":
        _check_jpeg(data, most)
    if name == "tiff" and (entries := entry_count(data)) > limits.MAX_ENTRIES:
        raise TooLarge(f"the tiff's directory has {entries:,} entries, the limit is {limits.MAX_ENTRIES:,}")
    if name == "tiff" and (values := value_count(data)) > limits.MAX_VALUES:
        raise TooLarge(f"the tiff's directory has {values:,} values, the limit is {limits.MAX_VALUES:,}")


def is_whole(image: bytes) -> bool:
    """Whether a PNG, JPEG or WebP has its end; truncated base64 may still decode. More may stand behind it."""
    if image.startswith(b"\x89PNG"):
        return any(kind == _IEND and end + 4 <= len(image) for kind, _, end in chunks(image))
    if image.startswith(b"\xff\xd8"):
        return _END_OF_IMAGE in _markers(image)
    return image.startswith(b"RIFF") and len(image) >= int.from_bytes(image[4:8], "little") + 8


# --- JPEG

_START_OF_SCAN, _QUANTIZATION, _APP1, _APP13 = 0xDA, 0xDB, 0xE1, 0xED
_END_OF_IMAGE = 0xD9
_MARKER = re.compile(rb"\xff[^\x00\x01\xd0-\xd7\xff]", re.DOTALL)
"""The next marker; skips stuffed bytes, fill bytes and restart markers."""
_WITHOUT_LENGTH = frozenset({0x01, *range(0xD0, 0xDA)})
"""Markers that are not followed by a length."""


def check_scans(data: bytes, pixels: int) -> None:
    """Refuse a JPEG whose scans would take too long: each is a pass over all pixels.

    Raises:
        TooLarge: past a limit, which the message names.
    """
    before_end = takewhile(lambda kind: kind != _END_OF_IMAGE, _markers(data))
    found = list(islice(before_end, limits.MAX_PARTS + 1))
    if len(found) > limits.MAX_PARTS:
        raise TooLarge(f"the jpeg is cut into more than {limits.MAX_PARTS:,} parts, which no picture needs")
    scans = found.count(_START_OF_SCAN)
    if scans > limits.MAX_JPEG_SCANS or scans * pixels > limits.MAX_SCAN_PIXELS:
        raise TooLarge(
            f"the JPEG has {scans} scans of {pixels / 1e6:.1f} megapixels, the limits are {limits.MAX_JPEG_SCANS} scans"
            f" and {limits.MAX_SCAN_PIXELS / 1e6:,.0f} megapixels in all scans together"
        )


def _check_jpeg(data: bytes, most: int) -> None:
    """Refuse much of what Pillow parses in Python, or copies whole with each piece added: 58 MB of EXIF take 13 s."""
    found = list(_segments(data))
    if sum(data.count(b"8BIM", at, end) for kind, at, end in found if kind == _APP13) > most:
        raise TooLarge(f"the jpeg has more than {most:,} blocks of Photoshop's, which no picture of its length needs")
    exif = sum(end - at for kind, at, end in found if kind == _APP1 and data[at : at + 6] == b"Exif\0\0")
    if exif > limits.MAX_EXIF_BYTES:
        raise TooLarge(f"the jpeg has {exif:,} bytes of EXIF, the limit is {limits.MAX_EXIF_BYTES:,}")
    tables = sum(end - at for kind, at, end in found if kind == _QUANTIZATION)
    if tables > limits.MAX_TABLE_BYTES:
        raise TooLarge(f"the jpeg has {tables:,} bytes of quantization tables, the limit is {limits.MAX_TABLE_BYTES:,}")


def _segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """The marker of each segment before the first scan, and the offsets at which its content begins and ends.

    A stray byte between two segments counts as a segment with marker 0.
    """
    at = 2
    while at + 4 <= len(data):
        kind = data[at + 1]
        if data[at] != 0xFF or kind in (0x00, 0xFF):
            yield 0, at, at + 1
            at += 1
        elif kind == _START_OF_SCAN:
            return
        else:
            end = at + (2 if kind in _WITHOUT_LENGTH else 2 + int.from_bytes(data[at + 2 : at + 4]))
            yield kind, at + 4, end
            at = end


def _markers(data: bytes) -> Iterator[int]:
    """The markers that a decoder meets up to the end of the picture, and that of the end.

    Bytes that look like markers inside a segment, or in a video that a phone appended, are skipped.
    """
    at = 2
    while marker := _MARKER.search(data, at):
        kind, at = data[marker.end() - 1], marker.end()
        yield kind
        if kind == _END_OF_IMAGE:
            return
        if kind not in _WITHOUT_LENGTH:
            at += int.from_bytes(data[at : at + 2])


# --- PNG

_IEND = b"IEND"
_CRITICAL = frozenset({b"IHDR", b"PLTE", b"IDAT", b"fdAT"})
"""Chunks that hold pixels or are needed to decode them."""


def chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """The type of each chunk of a PNG up to IEND, and the offsets at which its content begins and ends.

    What stands behind the end is not the picture's: some writers pad their files, others append what they like.
    """
    at, kind = 8, b""
    while at + 8 <= len(data) and kind != _IEND:
        kind, end = data[at + 4 : at + 8], at + 8 + int.from_bytes(data[at : at + 4])
        yield kind, at + 8, end
        at = end + 4


def content_of(data: bytes, wanted: bytes) -> bytes:
    """The content of a PNG's first chunk of a type; empty where there is none."""
    return next((data[start:end] for kind, start, end in chunks(data) if kind == wanted), b"")


def check_sums(data: bytes) -> None:
    """Verify the checksums of a PNG's chunks that its first frame needs. Pillow does not, and would show damage as
    colours.

    Raises:
        BadImage: a checksum is wrong, or a chunk is cut short.
    """
    view, frames = memoryview(data), 0
    for kind, start, end in chunks(data):
        frames += kind == b"fcTL"
        if frames > 1:
            return
        if kind in _CRITICAL and end + 4 > len(data):
            raise BadImage("the png is cut short")
        if kind in _CRITICAL and zlib.crc32(view[start - 4 : end]) != int.from_bytes(view[end : end + 4]):
            raise BadImage(f"the png data is broken: the checksum of a chunk {kind.decode()} is wrong")


# --- the first directory of a TIFF, or of EXIF, which has the same structure

_BYTE_TYPES = frozenset({1, 2, 6, 7})
"""BYTE, ASCII, SBYTE and UNDEFINED, whose values Pillow keeps as one byte string."""
_SHORT = 3
_NEW_SUBFILE_TYPE, _PHOTOMETRIC, _SUB_DIRECTORIES = 254, 262, 330
"""Tags (TIFF 6.0, section 8, and technical note 1)."""
_REDUCED = 1
"""Bit of NewSubfileType: a smaller version of another picture in the file."""
_SENSOR_DATA = frozenset({32803, 34892})
"""Photometric interpretations of raw files: colour filter array and linear raw (DNG specification)."""
_CANON = b"CR\2\0"
"""What a CR2 has after the TIFF header."""


def entry_count(data: bytes) -> int:
    """How many entries the directory claims to have; 0 where there is none to read."""
    order, big, at = _location(data)
    return int.from_bytes(data[at : at + (8 if big else 2)], order)


def value_count(data: bytes) -> int:
    """How many numbers the entries claim to hold, without texts, byte strings and claims larger than the file."""
    return sum(count for _, kind, count, _ in _entries(data) if kind not in _BYTE_TYPES and count <= len(data))


def is_raw(tiff: bytes) -> bool:
    """Whether a TIFF is a camera's raw file (DNG, NEF, CR2, ARW ...).

    The first picture of one is a preview, often a few hundred pixels wide, or sensor data that no TIFF reader shows.
    """
    found = {tag: value for tag, _, _, value in _entries(tiff)}
    is_preview = _SUB_DIRECTORIES in found and found.get(_NEW_SUBFILE_TYPE, 0) & _REDUCED
    return tiff[8:12] == _CANON or bool(is_preview) or found.get(_PHOTOMETRIC) in _SENSOR_DATA


def _entries(data: bytes) -> Iterator[tuple[int, int, int, int]]:
    """Tag, type, count, and value or offset of each entry."""
    order, big, at = _location(data)
    length, width = (20, 8) if big else (12, 4)
    first = at + (8 if big else 2)
    for entry in range(first, first + entry_count(data) * length, length):
        kind = int.from_bytes(data[entry + 2 : entry + 4], order)
        value = entry + 4 + width
        yield (
            int.from_bytes(data[entry : entry + 2], order),
            kind,
            int.from_bytes(data[entry + 4 : value], order),
            int.from_bytes(data[value : value + (2 if kind == _SHORT else width)], order),
        )


def _location(data: bytes) -> tuple[Literal["little", "big"], bool, int]:
    """Byte order, whether it is a BigTIFF, and the offset of the directory."""
    order: Literal["little", "big"] = "little" if data[:2] == b"II" else "big"
    big = data[2:4] in (b"+\0", b"\0+")
    return order, big, int.from_bytes(data[8:16] if big else data[4:8], order)


# --- GIF


def _gif_blocks(data: bytes) -> Iterator[int]:
    """The length of each data sub-block (GIF89a, section 15) up to the second image; 0 for a stray byte.

    Nobody reads further: a second image only shows that this is an animation.
    """
    images, at = 0, 13 + _gif_colour_table(data, 10)
    while at < len(data):
        kind = data[at]
        if kind == ord("!"):
            at += 2
        elif kind == ord(",") and images == 0:
            images += 1
            at += 11 + _gif_colour_table(data, at + 9)
        elif kind in (ord(","), ord(";")):
            return
        else:
            yield 0
            at += 1
            continue
        while at < len(data) and (length := data[at]):
            yield length
            at += 1 + length
        yield 0
        at += 1


def _gif_colour_table(data: bytes, at: int) -> int:
    """Bytes of the colour table announced by the flags at `at`."""
    flags = data[at] if at < len(data) else 0
    return 3 << ((flags & 7) + 1) if flags & 0x80 else 0


# --- WebP (RFC 9649)

_ANIMATION = 0x02
"""Flag of the chunk VP8X (section 2.7.1)."""


def is_animated_webp(data: bytes) -> bool:
    """Whether the header says so."""
    return data[12:16] == b"VP8X" and any(flags & _ANIMATION for flags in data[20:21])


def webp_size(data: bytes) -> tuple[int, int]:
    """Canvas of a WebP, pixels (sections 2.5 to 2.7).

    Raises:
        BadImage: cut short, or an unknown first chunk.
    """
    kind, body = data[12:16], data[20:30]
    if kind == b"VP8L" and len(body) >= 5:
        bits = int.from_bytes(body[1:5], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if kind == b"VP8X" and len(body) == 10:
        return int.from_bytes(body[4:7], "little") + 1, int.from_bytes(body[7:10], "little") + 1
    if kind == b"VP8 " and len(body) == 10:
        return int.from_bytes(body[6:8], "little") & 0x3FFF, int.from_bytes(body[8:10], "little") & 0x3FFF
    raise BadImage("the WebP header is broken or cut short")


def _webp_chunks(data: bytes) -> Iterator[int]:
    """Where the content of each chunk begins, animation frames among them (section 2.3)."""
    at = 12
    while at + 8 <= len(data):
        yield at + 8
        length = int.from_bytes(data[at + 4 : at + 8], "little")
        at += 8 + length + (length & 1)
