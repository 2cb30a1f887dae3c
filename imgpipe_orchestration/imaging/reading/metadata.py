"""What a file says about its pixels: orientation, colour space by numbers, and copyright and credit, which are the only
metadata that is written into variants."""

import struct
from html import unescape

from PIL import ExifTags, Image, ImageFile, IptcImagePlugin

from imgpipe_orchestration.errors import BadImage
from imgpipe_orchestration.imaging import limits
from imgpipe_orchestration.imaging.reading.parts import content_of, entry_count, value_count

_LONGEST = 256
_IPTC_AUTHOR, _IPTC_CREDIT, _IPTC_COPYRIGHT = (2, 80), (2, 110), (2, 116)
_TURN = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What makes each value upright (EXIF 2.32, tag 0x0112); 1 is upright already."""
_TURNED_BY_READER = ("TIFF", "HEIF")
_SRGB, _P3 = 1, 12
"""Code points of primaries (ITU-T H.273, tables 2 and 3). Others count as sRGB, unless there is a profile."""
_STANDARD = frozenset({1, 4, 6, 13, 14, 15})
"""Code points of transfer curves that are shown as sRGB's, as in browsers."""
_HDR = frozenset({16, 18})
"""PQ and HLG."""
_NCLX = b"colrnclx"
"""A colour box with code points (ISO/IEC 23000-22); no library tells them of an AVIF."""
_HEAD = 4096
"""Bytes of an AVIF in which it is looked for."""
_FULL_RGB = b"\0\1"
"""Matrix coefficients 0 (RGB) and full range, the only ones that fit a PNG's pixels."""
DISPLAY_P3 = "display_p3"
"""Key in the `info` of an image whose code points say so."""


def exif_of(image: Image.Image) -> Image.Exif:
    """The picture's EXIF; empty where it is broken, or has more in it than any camera writes."""
    block = image.info.get("exif") or b""
    read = block.removeprefix(b"Exif\0\0")
    # Each number becomes a Python object: 2.4 million fractions took 3.7 s.
    is_costly = entry_count(read) > limits.MAX_ENTRIES or value_count(read) > limits.MAX_ENTRIES * 8
    if is_costly or len(read) > limits.MAX_EXIF_BYTES:
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


def ownership(image: Image.Image) -> dict[str, str]:
    """`copyright` and `credit` of an image, each at most 256 characters, empty where there is none; the first of EXIF,
    IPTC and XMP counts that has it."""
    exif = exif_of(image)
    try:
        iptc = (IptcImagePlugin.getiptcinfo(image) if isinstance(image, ImageFile.ImageFile) else None) or {}
    except Exception:
        iptc = {}
    packet = image.info.get("xmp")
    xmp = packet if isinstance(packet, bytes) else b""
    by = ExifTags.Base
    rights = (exif.get(by.Copyright), iptc.get(_IPTC_COPYRIGHT), _dublin_core(xmp, b"rights"))
    credit = (exif.get(by.Artist), iptc.get(_IPTC_CREDIT), iptc.get(_IPTC_AUTHOR), _dublin_core(xmp, b"creator"))
    return {
        name: next(filter(None, map(_text, values)), "") for name, values in (("copyright", rights), ("credit", credit))
    }


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
        value = value.encode("latin-1", "replace")  # Pillow decodes EXIF so, but most programs write UTF-8
    if not isinstance(value, bytes):
        return ""
    try:
        text = value.decode()
    except UnicodeDecodeError:
        text = value.decode("latin-1")
    return text.replace("\0", " ").strip()[:_LONGEST]


def orientation_of(image: Image.Image) -> int:
    """The EXIF orientation, 1 to 8, in whichever format it is carried; 1 where absent or broken.

    Also 1 for formats whose readers rotate the pixels themselves: TIFF, and HEIC, which has an orientation of its own
    besides EXIF's (ISO/IEC 23008-12). EXIF in a PNG's texts does not count: browsers ignore it,
    and programs that rotate a picture's pixels do not reset it.
    """
    if image.format in _TURNED_BY_READER or "exif" not in image.info:
        return 1
    value = exif_of(image).get(ExifTags.Base.Orientation, 1)
    return value if value in _TURN else 1


def upright(image: Image.Image, orientation: int) -> Image.Image:
    """The image as it is meant to be seen."""
    return image.transpose(_TURN[orientation]) if orientation in _TURN else image


def note_colours(image: Image.Image, data: bytes, name: str) -> None:
    """Note in the `info` of an opened image that it is in Display P3 by code points (CICP): PNG's cICP chunk, AVIF's
    and HEIC's nclx box. Browsers honour them, Pillow's readers do not.

    A PNG's numbers outrank its profile, which is dropped then (PNG, third edition, 4.3); in other formats a profile
    comes first.

    Raises:
        BadImage: HDR without a profile.
    """
    primaries, transfer = _code_points(image, data, name)
    if name == "png" and primaries in {_SRGB, _P3} and transfer in _STANDARD:
        image.info.pop("icc_profile", None)
    if "icc_profile" in image.info:
        return
    if transfer in _HDR:
        raise BadImage("an HDR picture (PQ or HLG) is not read: export it in standard dynamic range, as JPEG")
    if primaries == _P3:
        image.info[DISPLAY_P3] = True


def _code_points(image: Image.Image, data: bytes, name: str) -> tuple[int, int]:
    """Those of primaries and transfer curve; zeros where none are named."""
    if name == "png":
        chunk = content_of(data, b"cICP")
        return (chunk[0], chunk[1]) if len(chunk) == 4 and chunk[2:] == _FULL_RGB else (0, 0)
    if name == "avif" and (at := data.find(_NCLX, 0, _HEAD)) > 0:
        primaries, transfer = struct.unpack(">HH", data[at + 8 : at + 12].ljust(4, b"\0"))
        return primaries, transfer
    if name == "heic" and (nclx := image.info.get("nclx_profile")):
        return nclx["color_primaries"], nclx["transfer_characteristics"]
    return 0, 0
