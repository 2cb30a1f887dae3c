"""Bytes to pixels: the first frame, no larger than the largest output needs."""

import hashlib
import re

from PIL import Image, JpegImagePlugin, PngImagePlugin

from imgpipe_orchestration.errors import BadImage, ImgpipeError, TooLarge
from imgpipe_orchestration.imaging.libvips import libvips, out_of_libvips, resized
from imgpipe_orchestration.imaging.limits import check_pixels
from imgpipe_orchestration.imaging.reading.sniff import Original, sniff

_END_OF_JPEG = b"\xff\xd9"
_PIXELS = b"\x55" * 1024
"""Entropy-coded data that decodes to some pixels in any JPEG; with less, libjpeg sees the next marker and gives up."""
_NO_MEMORY = "Memory allocation error"
"""The beginning of libheif's message for it."""
_ROWS = 256
"""Rows that are hashed at a time: all at once would take the picture's memory again."""


def decode(original: Original, enough: tuple[int, int] | None = None) -> Image.Image:
    """The first frame, still in its own mode, profile and orientation (`info` holds `icc_profile`).

    Args:
        enough: upright width and height that suffice. A JPEG is then decoded at 1/2, 1/4 or 1/8 where that is still
            at least as large; otherwise a plain JPEG or PNG is shrunk to this size while it is decoded.

    Raises:
        BadImage: broken or cut short.
        TooLarge: past a limit, or more memory than the worker may take.
    """
    image, name = original.image, original.format
    try:
        if enough and isinstance(image, JpegImagePlugin.JpegImageFile):
            image.draft(None, original.stored(enough))
        if (quickly := streamed(original, enough)) is not None:
            return quickly
        image.load()
    except ImgpipeError:
        raise
    except Exception as error:
        if name == "jpeg" and "truncated" in str(error):
            return _without_end_marker(original, enough)
        if isinstance(error, MemoryError) or str(error).startswith(_NO_MEMORY):
            raise TooLarge(f"decoding this {name} needs more memory than a worker may take") from error
        raise BadImage(f"the {name} data is damaged or cut short", detail=str(error)) from error
    check_pixels(image.width, image.height, name)
    if name == "bmp" and image.mode == "RGBA" and image.getchannel("A").getextrema() == (0, 0):
        return image.convert("RGB")  # Windows leaves the fourth byte 0, and browsers show such a picture as opaque
    return image


def streamed(original: Original, enough: tuple[int, int] | None) -> Image.Image | None:
    """The pixels that Pillow would decode, decoded and shrunk in one go by libvips, which streams rows and never holds
    the whole picture in memory: 0.5 to 0.7 of the time that Pillow takes to decode and then shrink.

    None where the file is not a plain JPEG or PNG, or is broken: Pillow decodes whatever libvips so much as warns
    about, and shows it or says what is wrong.
    """
    image = original.image
    loader = _loader(image)
    if loader is None or original.animated or image.size != (original.width, original.height):
        return None  # a draft has made it smaller already
    try:
        picture = getattr(libvips().Image, loader)(original.data, access="sequential", fail_on="warning")
        if enough and (size := original.stored(enough)) != image.size and image.mode != "RGBA":
            picture = resized(picture, *size)
        result = out_of_libvips(picture, image.mode)
    except (libvips().Error, MemoryError):
        return None
    result.info = dict(image.info)
    return result


def _loader(image: Image.Image) -> str | None:
    """libvips' loader for 8 bits a channel without palette, inversion or transparent colour; None for all else."""
    if isinstance(image, JpegImagePlugin.JpegImageFile):
        return "jpegload_buffer" if image.mode in {"L", "RGB"} else None
    if isinstance(image, PngImagePlugin.PngImageFile) and image.tile[0].args in {"L", "RGB", "RGBA"}:
        # "loop" marks an animation, of which Pillow may have been given another frame.
        return "pngload_buffer" if not {"transparency", "loop"} & image.info.keys() else None
    return None


def _without_end_marker(original: Original, enough: tuple[int, int] | None) -> Image.Image:
    """A JPEG that lacks only its end marker; browsers show it as well.

    libjpeg silently fills missing pixels with grey. So the data is completed in two ways that decode differently
    wherever pixels are missing: if both pictures are equal, none are.
    """
    seen = set()
    for filling in (_filling(original.data), b""):
        image = sniff(original.data + filling + _END_OF_JPEG).image
        try:
            if enough:
                image.draft(None, original.stored(enough))
            image.load()
        except Exception as error:
            raise BadImage("the jpeg is cut short") from error
        seen.add(pixel_sha256(image))  # keeping two pictures would take much memory
    if len(seen) > 1:
        raise BadImage("the jpeg is cut short")
    return image


def _filling(jpeg: bytes) -> bytes:
    """Data for missing pixels, after each of the restart markers that a decoder may be waiting for."""
    found = re.findall(rb"\xff([\xd0-\xd7])", jpeg)
    last = found[-1][0] if found else 0xD7
    restarts = [0xD0 + (last + 1 + number) % 8 for number in range(8)]
    # The leading 0 completes a stuffed 0xFF, should the file end in the middle of one.
    return b"\0" + _PIXELS + b"".join(b"\xff%c" % restart + _PIXELS for restart in restarts)


def pixel_sha256(image: Image.Image) -> str:
    """Hex digest over size, mode and pixels: equal for the same picture in two lossless files."""
    digest = hashlib.sha256(f"{image.mode} {image.width}x{image.height}\n".encode())
    for top in range(0, image.height, _ROWS):
        digest.update(image.crop((0, top, image.width, min(top + _ROWS, image.height))).tobytes())
    return digest.hexdigest()
