"""Signatures, and the header fields that must be checked before Pillow may open a file.

Its WebP reader allocates the whole canvas on opening, and no reader counts a JPEG's scans and a PNG's texts.
"""

from __future__ import annotations

from itertools import islice

from imgpipe_orchestration.errors import BadImage, TooLarge
from imgpipe_orchestration.imaging.formats import READ_HERE
from imgpipe_orchestration.imaging.limits import Limits, check_pixels
from imgpipe_orchestration.imaging.reading import svg
from imgpipe_orchestration.imaging.reading.jpeg_segments import START_OF_SCAN, markers
from imgpipe_orchestration.imaging.reading.part_limits import check_parts, is_animated_webp, webp_size
from imgpipe_orchestration.imaging.reading.png_chunks import chunks
from imgpipe_orchestration.imaging.reading.tiff_directory import is_raw

_HEIC_BRANDS = frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"})
_AVIF_BRANDS = frozenset({b"avif", b"avis"})
_RAW = "a camera's raw file is not read: develop it and send "
_OTHER_IMAGES = {
    b"8BPS": "a Photoshop document",
    b"\0\0\0\x0cjP  \r\n\x87\n": "JPEG 2000",
    b"\xff\x4f\xff\x51": "JPEG 2000",
    b"\0\0\1\0": "an icon",
    b"\xff\x0a": "JPEG XL",
    b"\0\0\0\x0cJXL \r\n\x87\n": "JPEG XL",
}
"""Images that are not read, by their signatures."""
_FROM_XCODE = "send the PNG of before the build, or open this one in Preview on a Mac and export it as PNG"
_RUNS = (b"\1\0\0\0", b"\2\0\0\0")
"""Compressions of a BMP that Pillow undoes in Python, a pixel at a time."""


def identify(data: bytes) -> str:
    """Our name for the format whose signature `data` begins with.

    Raises:
        BadImage: empty, or no image format that is read; names what it is, if it is known.
    """
    if not data:
        raise BadImage("the file is empty: it has 0 bytes")
    simple = (
        ("jpeg", b"\xff\xd8\xff"),
        ("png", b"\x89PNG\r\n\x1a\n"),
        ("gif", b"GIF87a"),
        ("gif", b"GIF89a"),
        ("tiff", b"II*\0"),
        ("tiff", b"MM\0*"),
        ("tiff", b"II+\0"),
        ("bmp", b"BM"),
    )
    for name, signature in simple:
        if data.startswith(signature):
            return name
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "webp"
    if data[4:8] == b"ftyp":
        return _identify_iso(data)
    for signature, title in _OTHER_IMAGES.items():
        if data.startswith(signature):
            raise BadImage(f"{title} is not read: send {READ_HERE}")
    if svg.is_svg(data):
        raise BadImage(f"SVG is only accepted as a logo (field logo_image): send {READ_HERE}")
    start = data[:1024].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    raise BadImage(f"not an image {_guessed(data, start)}: send {READ_HERE}")


def _guessed(data: bytes, start: bytes) -> str:
    """What people would call a file that is not an image; `start` is its beginning in lower case."""
    if data.startswith(b"%PDF"):
        return "but a PDF"
    if data.startswith(b"PK"):
        return "but a ZIP archive or an office document"
    if start.startswith((b"<html", b"<!doctype html")):
        return "but a web page"
    text = data[:1024].decode("utf-8", "replace")[:-1]  # the last letter may be cut through
    if text and "\ufffd" not in text and all(letter.isprintable() or letter.isspace() for letter in text):
        return "but plain text"
    return "of a kind that is read"


def _identify_iso(data: bytes) -> str:
    """AVIF or HEIC, by the brands in the `ftyp` box (ISO/IEC 14496-12, section 4.3)."""
    length = min(int.from_bytes(data[:4], "big"), 256)
    brands = {data[8:12]} | {data[i : i + 4] for i in range(16, length, 4)}
    if brands & _AVIF_BRANDS:
        return "avif"
    if brands & _HEIC_BRANDS:
        return "heic"
    brand = data[8:12].decode("ascii", "replace")
    raise BadImage(f"not an image but a video or another media file of brand {brand!r}: send {READ_HERE}")


def check_cost(data: bytes, name: str, limits: Limits) -> None:
    """Refuse what would cost much merely to open.

    Raises:
        BadImage: a WebP without a readable size, a camera's raw file that begins like TIFF, a kind of BMP or PNG that
            is not read.
        TooLarge: past a limit, which the message names.
    """
    if name == "webp":
        check_pixels(*webp_size(data), "animated webp" if is_animated_webp(data) else name, limits)
    check_parts(data, name, limits)
    if name == "bmp" and data[30:34] in _RUNS:
        raise BadImage("a run-length encoded BMP is not read: save it as PNG or JPEG")
    if name == "tiff" and is_raw(data):
        raise BadImage(_RAW + READ_HERE)
    if name == "png":
        if data[12:16] == b"CgBI":
            raise BadImage(f"a PNG in the form that Xcode gives it for iPhones (CgBI) is not read: {_FROM_XCODE}")
        texts = sum(kind in (b"zTXt", b"iTXt") for kind, *_ in chunks(data))
        if texts > limits.max_text_chunks:
            raise TooLarge(f"the PNG has {texts} compressed texts, the limit is {limits.max_text_chunks}")


def check_scans(data: bytes, pixels: int, limits: Limits) -> None:
    """Refuse a JPEG whose scans would take too long: each is a pass over all pixels.

    Raises:
        TooLarge: past a limit, which the message names.
    """
    found = list(islice(markers(data), limits.max_parts + 1))
    if len(found) > limits.max_parts:
        raise TooLarge(f"the jpeg is cut into more than {limits.max_parts:,} parts, which no picture needs")
    scans = found.count(START_OF_SCAN)
    if scans > limits.max_jpeg_scans or scans * pixels > limits.max_scan_pixels:
        raise TooLarge(
            f"the JPEG has {scans} scans of {pixels / 1e6:.1f} megapixels, the limits are {limits.max_jpeg_scans} scans"
            f" and {limits.max_scan_pixels / 1e6:,.0f} megapixels in all scans together"
        )
