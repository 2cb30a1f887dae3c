"""Colour spaces named by code points (CICP) instead of a profile: PNG's cICP chunk, AVIF's and HEIC's nclx box.

Browsers honour them; Pillow's readers do not. Without this a Display P3 picture would come out flat, and an HDR one
grey. Code points are those of ITU-T H.273 (2021), tables 2 and 3.
"""

from __future__ import annotations

import struct

from PIL import Image

from imgpipe_orchestration.errors import BadImage
from imgpipe_orchestration.imaging.libvips import into_libvips, out_of_libvips
from imgpipe_orchestration.imaging.reading.png_chunks import content_of

_SRGB, _P3 = 1, 12
"""Code points of primaries. Others count as sRGB, unless there is a profile."""
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
_NOTED = "display_p3"


def note_colours(image: Image.Image, data: bytes, name: str) -> None:
    """Note in the `info` of an opened image that it is in Display P3 by number, for `in_display_p3`. A PNG's numbers
    outrank its profile, which is dropped then (PNG, third edition, 4.3); in other formats a profile comes first.

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
        image.info[_NOTED] = True


def in_display_p3(image: Image.Image) -> bool:
    """Whether the code points say so."""
    return _NOTED in image.info


def from_display_p3(image: Image.Image) -> Image.Image:
    """An RGB or RGBA picture in sRGB. Colours outside sRGB are clipped."""
    picture = into_libvips(image.convert("RGB")).copy(interpretation="srgb")
    result = out_of_libvips(picture.icc_transform("srgb", input_profile="p3"), "RGB")
    if image.mode == "RGBA":
        result.putalpha(image.getchannel("A"))
    return result


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
