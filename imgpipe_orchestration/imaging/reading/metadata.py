"""What is read of a picture's metadata, and the only part of it that outlives a rendering: whose picture it is."""

from __future__ import annotations

from PIL import ExifTags, Image, ImageFile, IptcImagePlugin

from imgpipe_orchestration.imaging.limits import DEFAULT_LIMITS
from imgpipe_orchestration.imaging.reading.tiff_directory import entry_count, value_count

_LONGEST = 256
_RAW_PROFILE = "Raw profile type exif"
"""Under which old programs put EXIF into a PNG's texts."""
_IPTC_CREDIT, _IPTC_COPYRIGHT = (2, 110), (2, 116)


def exif_of(image: Image.Image) -> Image.Exif:
    """The picture's EXIF; empty where it is broken, or has more in it than any camera writes."""
    block = image.info.get("exif") or b""
    if _is_costly(block.removeprefix(b"Exif\0\0")):
        return Image.Exif()
    try:
        if block:
            # Not `getexif`, which takes an orientation that is missing from XMP: no browser does, and programs that
            # turn a picture's pixels clear it in EXIF only.
            exif = Image.Exif()
            exif.load(block)
            return exif
        if image.format == "TIFF":
            return image.getexif()
        if _RAW_PROFILE in image.info:
            # A PNG's own way decodes all pixels in search of a chunk behind them, and once that has failed here, Pillow
            # holds the picture for loaded and says nothing any more.
            return Image.Image.getexif(image)
        return Image.Exif()
    except Exception:
        return Image.Exif()


def _is_costly(block: bytes) -> bool:
    """Whether EXIF has more than the limits allow. Each number becomes an object: 2.4 million fractions took 3.7 s."""
    limits = DEFAULT_LIMITS
    return (
        len(block) > limits.max_exif_bytes
        or entry_count(block) > limits.max_entries
        or value_count(block) > limits.max_entries * 8
    )


def ownership(image: Image.Image) -> dict[str, str]:
    """`copyright` and `credit` of an image, from EXIF, else from IPTC; each at most 256 characters."""
    exif = exif_of(image)
    try:
        iptc = (IptcImagePlugin.getiptcinfo(image) if isinstance(image, ImageFile.ImageFile) else None) or {}
    except Exception:
        iptc = {}
    found = {
        "copyright": exif.get(ExifTags.Base.Copyright) or iptc.get(_IPTC_COPYRIGHT),
        "credit": exif.get(ExifTags.Base.Artist) or iptc.get(_IPTC_CREDIT),
    }
    return {name: text for name, value in found.items() if (text := _text(value))}


def exif_block(owner: dict[str, str]) -> bytes:
    """An EXIF block with nothing but the given ownership, in UTF-8 as most programs write it; empty for none."""
    exif = Image.Exif()
    for tag, name in ((ExifTags.Base.Copyright, "copyright"), (ExifTags.Base.Artist, "credit")):
        if owner.get(name):
            exif[tag] = owner[name].encode()  # of a text Pillow writes what is not ASCII as question marks
    return exif.tobytes() if len(exif) else b""


def _text(value: object) -> str:
    if isinstance(value, list):
        value = value[0] if value else ""
    if isinstance(value, str):
        value = value.encode("latin-1", "replace")  # as which Pillow reads EXIF; most programs write UTF-8
    if not isinstance(value, bytes):
        return ""
    try:
        text = value.decode()
    except UnicodeDecodeError:
        text = value.decode("latin-1")
    return text.replace("\0", " ").strip()[:_LONGEST]
