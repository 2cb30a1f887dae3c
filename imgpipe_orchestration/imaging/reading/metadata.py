"""Reading EXIF, IPTC and XMP, and the only metadata that is written into variants: copyright and credit."""

from __future__ import annotations

from html import unescape

from PIL import ExifTags, Image, ImageFile, IptcImagePlugin

from imgpipe_orchestration.imaging.limits import DEFAULT_LIMITS
from imgpipe_orchestration.imaging.reading.tiff_directory import entry_count, value_count

_LONGEST = 256
_IPTC_AUTHOR, _IPTC_CREDIT, _IPTC_COPYRIGHT = (2, 80), (2, 110), (2, 116)


def exif_of(image: Image.Image) -> Image.Exif:
    """The picture's EXIF; empty where it is broken, or has more in it than any camera writes."""
    block = image.info.get("exif") or b""
    if _is_costly(block.removeprefix(b"Exif\0\0")):
        return Image.Exif()
    try:
        if image.format == "TIFF":
            return image.getexif()
        # Not `getexif`, which falls back to XMP for the orientation: no browser does, and programs that rotate a
        # picture's pixels reset only the one in EXIF.
        exif = Image.Exif()
        exif.load(block)
        return exif
    except Exception:
        return Image.Exif()


def _is_costly(block: bytes) -> bool:
    """Whether EXIF exceeds the limits. Each number becomes a Python object: 2.4 million fractions took 3.7 s."""
    limits = DEFAULT_LIMITS
    return (
        len(block) > limits.max_exif_bytes
        or entry_count(block) > limits.max_entries
        or value_count(block) > limits.max_entries * 8
    )


def ownership(image: Image.Image) -> dict[str, str]:
    """`copyright` and `credit` of an image, each at most 256 characters; the first of EXIF, IPTC and XMP
    counts that has it."""
    exif = exif_of(image)
    try:
        iptc = (IptcImagePlugin.getiptcinfo(image) if isinstance(image, ImageFile.ImageFile) else None) or {}
    except Exception:
        iptc = {}
    packet = image.info.get("xmp")
    xmp = packet if isinstance(packet, bytes) else b""
    found = {
        "copyright": (
            exif.get(ExifTags.Base.Copyright),
            iptc.get(_IPTC_COPYRIGHT),
            _dublin_core(xmp, b"rights"),
        ),
        "credit": (
            exif.get(ExifTags.Base.Artist),
            iptc.get(_IPTC_CREDIT),
            iptc.get(_IPTC_AUTHOR),
            _dublin_core(xmp, b"creator"),
        ),
    }
    texts = {name: next(filter(None, map(_text, values)), "") for name, values in found.items()}
    return {name: text for name, text in texts.items() if text}


def _dublin_core(xmp: bytes, name: bytes) -> bytes:
    """The first value of a property in XMP, under the prefixes that programs write; empty where there is none."""
    value, end, _ = xmp.partition(b"<dc:%b>" % name)[2].partition(b"</dc:%b>" % name)
    item = value.partition(b"<rdf:li")[2].partition(b">")[2].partition(b"<")[0] if end else b""
    return unescape(item[: _LONGEST * 8].decode(errors="replace")).encode()


def exif_block(owner: dict[str, str]) -> bytes:
    """An EXIF block with only `copyright` and `credit`, in UTF-8 as most programs write it; empty for neither."""
    exif = Image.Exif()
    for tag, name in ((ExifTags.Base.Copyright, "copyright"), (ExifTags.Base.Artist, "credit")):
        if owner.get(name):
            exif[tag] = owner[name].encode()  # in a str Pillow would replace non-ASCII characters by question marks
    return exif.tobytes() if len(exif) else b""


def _text(value: object) -> str:
    if isinstance(value, list):
        value = value[0] if value else ""
    if isinstance(value, str):
        value = value.encode("latin-1", "replace")  # as which Pillow decodes EXIF, but most programs write UTF-8
    if not isinstance(value, bytes):
        return ""
    try:
        text = value.decode()
    except UnicodeDecodeError:
        text = value.decode("latin-1")
    return text.replace("\0", " ").strip()[:_LONGEST]
