"""How many parts a file is made of: segments, chunks, blocks, entries.

Pillow takes a turn of a Python loop for each of them, so that five megabytes of nothing but empty ones cost a second
and 150 MB before a pixel is decoded. Counting stops at the limit.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator
from itertools import islice
from typing import Literal

from imgpipe_orchestration.errors import BadImage, TooLarge
from imgpipe_orchestration.imaging.limits import Limits

PICTURE = frozenset({b"IHDR", b"PLTE", b"IDAT", b"fdAT"})
"""PNG chunks that hold pixels, or say what they mean."""
PNG_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
"""By the kind of colour in a PNG's header."""
PNG_PALETTE = 3
_COLOURS = frozenset({b"cICP", b"iCCP", b"sRGB", b"gAMA", b"cHRM"})
START_OF_SCAN, _END_OF_IMAGE, _QUANTIZATION, _APP1 = 0xDA, 0xD9, 0xDB, 0xE1
_MARKER = re.compile(rb"\xff[^\x00\x01\xd0-\xd7\xff]", re.DOTALL)
"""A JPEG's next marker, past stuffed and fill bytes and restarts."""
_NO_NUMBERS = frozenset({1, 2, 6, 7})
"""TIFF types whose values stay one string of bytes: BYTE, ASCII, SBYTE, UNDEFINED."""
_SHORT = 3
_NEW_SUBFILE_TYPE, _PHOTOMETRIC, _SUB_DIRECTORIES = 254, 262, 330
"""Tags of a TIFF (version 6.0, section 8, and technical note 1)."""
_REDUCED = 1
"""Bit of a subfile's type: a smaller version of another picture in the file."""
_OF_THE_SENSOR = frozenset({32803, 34892})
"""What a pixel may mean: light behind a filter, or light without a curve (DNG specification)."""
_CANON = b"CR\2\0"
"""What a CR2 has behind the header of a TIFF."""
_ALONE = frozenset({0x01, *range(0xD0, 0xDA)})
"""JPEG markers that have no length after them."""


def check_parts(data: bytes, name: str, limits: Limits) -> None:
    """Refuse a file of far more parts than one of its length needs.

    Raises:
        TooLarge: past the limit, which the message names.
    """
    walk = {"jpeg": jpeg_segments, "png": png_chunks, "gif": _gif_blocks, "webp": _webp_chunks}.get(name)
    most = limits.max_parts + len(data) // 256  # a GIF's blocks have 256 bytes, a PNG's chunks seldom under 4,096
    if walk and next(islice(walk(data), most, None), None) is not None:
        raise TooLarge(f"the {name} is cut into more than {most:,} parts, which no picture of its length needs")
    if name == "jpeg":
        _check_jpeg(data, most, limits)
    if name == "tiff" and (entries := directory_entries(data)) > limits.max_entries:
        raise TooLarge(f"the tiff's directory has {entries:,} entries, the limit is {limits.max_entries:,}")
    if name == "tiff" and (values := directory_values(data)) > limits.max_values:
        raise TooLarge(f"the tiff's directory has {values:,} values, the limit is {limits.max_values:,}")


def _check_jpeg(data: bytes, most: int, limits: Limits) -> None:
    """Refuse what Pillow takes apart piece by piece, or puts together anew with each piece: 13 s for 58 MB of EXIF."""
    if data.count(b"8BIM") > most:
        raise TooLarge(f"the jpeg has more than {most:,} blocks of Photoshop's, which no picture of its length needs")
    segments = list(jpeg_segments(data))
    exif = sum(end - at for kind, at, end in segments if kind == _APP1 and data[at : at + 6] == b"Exif\0\0")
    if exif > limits.max_exif_bytes:
        raise TooLarge(f"the jpeg has {exif:,} bytes of EXIF, the limit is {limits.max_exif_bytes:,}")
    tables = sum(end - at for kind, at, end in segments if kind == _QUANTIZATION)
    if tables > limits.max_table_bytes:
        raise TooLarge(f"the jpeg has {tables:,} bytes of quantization tables, the limit is {limits.max_table_bytes:,}")


def jpeg_segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """The marker of each segment before the first scan, and where its content begins and ends. A byte that belongs to
    none counts as one (0)."""
    at = 2
    while at + 4 <= len(data):
        kind = data[at + 1]
        if data[at] != 0xFF or kind in (0x00, 0xFF):
            yield 0, at, at + 1
            at += 1
        elif kind == START_OF_SCAN:
            return
        else:
            end = at + (2 if kind in _ALONE else 2 + int.from_bytes(data[at + 2 : at + 4]))
            yield kind, at + 4, end
            at = end


def jpeg_markers(data: bytes) -> Iterator[int]:
    """The markers that a decoder comes by before the picture's end. Bytes that look like them stand in a segment too,
    and in the film that a phone appends."""
    at = 2
    while marker := _MARKER.search(data, at):
        kind, at = data[marker.end() - 1], marker.end()
        if kind == _END_OF_IMAGE:
            return
        yield kind
        if kind not in _ALONE:
            at += int.from_bytes(data[at : at + 2])


def png_chunks(data: bytes) -> Iterator[bytes]:
    """The kind of each chunk."""
    for kind, _, _ in png_parts(data):
        yield kind


def png_chunk(data: bytes, wanted: bytes) -> bytes:
    """The content of the first chunk of a kind; empty where there is none."""
    return next((data[start:end] for kind, start, end in png_parts(data) if kind == wanted), b"")


def png_colours(data: bytes) -> dict[bytes, bytes]:
    """The content of the first chunk of each kind that says what the colours mean. Those behind the pixels, or with a
    wrong checksum, say nothing."""
    view, found = memoryview(data), {}
    for kind, start, end in png_parts(data):
        if kind == b"IDAT":
            break
        if kind in _COLOURS and kind not in found and png_is_intact(view, start, end):
            found[kind] = data[start:end]
    return found


def png_is_intact(view: memoryview, start: int, end: int) -> bool:
    """Whether the checksum of the chunk whose content lies there is right."""
    return zlib.crc32(view[start - 4 : end]) == int.from_bytes(view[end : end + 4])


def check_png_sums(data: bytes) -> None:
    """Compare the checksums of the chunks that make the picture, which Pillow does not: it shows what broke as colours.

    Raises:
        BadImage: one is wrong, or cut short.
    """
    view, frames = memoryview(data), 0
    for kind, start, end in png_parts(data):
        frames += kind == b"fcTL"
        if kind == b"IEND" or frames > 1:
            return
        if kind in PICTURE and end + 4 > len(data):
            raise BadImage("the png is cut short")
        if kind in PICTURE and not png_is_intact(view, start, end):
            raise BadImage(f"the png data is broken: the checksum of a chunk {kind.decode()} is wrong")


def png_parts(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """The kind of each chunk, and where its content begins and ends."""
    at = 8
    while at + 8 <= len(data):
        end = at + 8 + int.from_bytes(data[at : at + 4])
        yield data[at + 4 : at + 8], at + 8, end
        at = end + 4


def bmp_profile(data: bytes) -> bytes:
    """The colour profile in a BMP (BITMAPV5HEADER, of kind PROFILE_EMBEDDED); empty where there is none."""
    head = data[14:138]
    if len(head) < 124 or int.from_bytes(head[:4], "little") < 124 or head[56:60] != b"DEBM":
        return b""
    at, length = 14 + int.from_bytes(head[112:116], "little"), int.from_bytes(head[116:120], "little")
    return data[at : at + length]


def _webp_chunks(data: bytes) -> Iterator[bytes]:
    """The kind of each chunk, animation frames among them (RFC 9649, section 2.3)."""
    at = 12
    while at + 8 <= len(data):
        yield data[at : at + 4]
        length = int.from_bytes(data[at + 4 : at + 8], "little")
        at += 8 + length + (length & 1)


def _gif_blocks(data: bytes) -> Iterator[int]:
    """The length of each block of data (GIF89a, section 15) up to the second image, stray bytes as 0.

    Nothing further is read: one more image tells that it is an animation.
    """
    images, at = 0, 13 + _gif_colours(data, 10)
    while at < len(data):
        kind = data[at]
        if kind == ord("!"):
            at += 2
        elif kind == ord(",") and images == 0:
            images += 1
            at += 11 + _gif_colours(data, at + 9)
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


def _gif_colours(data: bytes, at: int) -> int:
    """Bytes of the colour table that the flags at `at` announce."""
    flags = data[at] if at < len(data) else 0
    return 3 << ((flags & 7) + 1) if flags & 0x80 else 0


def directory_entries(data: bytes) -> int:
    """Entries of the first directory of a TIFF (or of EXIF, which is one); 0 where there is none to read."""
    order, big, at = _directory(data)
    return int.from_bytes(data[at : at + (8 if big else 2)], order)


def directory_values(data: bytes) -> int:
    """Numbers in the first directory of a TIFF (or of EXIF) that there is room for; texts and bytes are none."""
    return sum(count for _, kind, count, _ in _entries(data) if kind not in _NO_NUMBERS and count <= len(data))


def is_raw(tiff: bytes) -> bool:
    """Whether a TIFF is a camera's raw file (DNG, NEF, CR2, ARW ...). Its first picture is a preview, often of a few
    hundred pixels, or the sensor's values, which no reader of TIFFs shows."""
    if tiff[8:12] == _CANON:
        return True
    found = {tag: value for tag, _, _, value in _entries(tiff)}
    is_preview = _SUB_DIRECTORIES in found and found.get(_NEW_SUBFILE_TYPE, 0) & _REDUCED
    return bool(is_preview) or found.get(_PHOTOMETRIC) in _OF_THE_SENSOR


def _entries(data: bytes) -> Iterator[tuple[int, int, int, int]]:
    """Tag, type, count, and value or place of it, of each entry in the first directory of a TIFF (or of EXIF)."""
    order, big, at = _directory(data)
    length, width = (20, 8) if big else (12, 4)
    first = at + (8 if big else 2)
    for entry in range(first, first + directory_entries(data) * length, length):
        kind = int.from_bytes(data[entry + 2 : entry + 4], order)
        value = entry + 4 + width
        yield (
            int.from_bytes(data[entry : entry + 2], order),
            kind,
            int.from_bytes(data[entry + 4 : value], order),
            int.from_bytes(data[value : value + (2 if kind == _SHORT else width)], order),
        )


def _directory(data: bytes) -> tuple[Literal["little", "big"], bool, int]:
    """Byte order of a TIFF, whether it is a BigTIFF, and where its first directory begins."""
    order: Literal["little", "big"] = "little" if data[:2] == b"II" else "big"
    big = data[2:4] in (b"+\0", b"\0+")
    return order, big, int.from_bytes(data[8:16] if big else data[4:8], order)
