"""What these bytes are, from their content alone and without decoding a pixel.

An upload's file name and Content-Type do not count. Limits are checked here, so that what passes can be opened.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from PIL import Image, UnidentifiedImageError

from imgpipe_orchestration.errors import BadImage, ImgpipeError, TooLarge
from imgpipe_orchestration.imaging.formats import extension
from imgpipe_orchestration.imaging.limits import DEFAULT_LIMITS, Limits, check_pixels
from imgpipe_orchestration.imaging.reading import headers, jpeg_extras, png_chunks, png_extras, readers
from imgpipe_orchestration.imaging.reading.density import check_length

_MAY_MOVE = frozenset({"gif", "webp", "avif", "png"})
"""Formats in which several pictures are an animation. In TIFF they are pages, in JPEG and HEIC depth or gain maps."""

_MANY_KINDS = frozenset({"tiff", "bmp", "jpeg", "heic", "avif"})
"""Formats with variants that no reader of ours knows, such as 16-bit floats, videos or another codec's pixels."""

_OF_THE_READER = (
    "apng contains",
    "broken data stream",
    "cannot load this image",
    "codec configuration error",
    "conversion from yuv failed",
    "could not create decoder",
    "decoder plugin generated",
    "failed to decode image",
    "failed to read next frame",
    "generic error",
    "image file is truncated",
    "invalid extents",
    "not identified by this driver",
    "tile cannot extend",
    "truncated file read",
    "unable to ",
    "unknown raw mode",
    "unrecognized data stream",
)
"""Beginnings, in lower case, of error messages that say where a reader gave up and not what is wrong with the file."""

_PROFILE = {"jpeg": jpeg_extras.profile, "png": png_extras.profile}
"""Reads the colour profile where Pillow finds none, or another one than browsers."""

_MOST_COLOURS, _OPAQUE = 256, b"\xff"
"""Entries of a palette; and transparency that makes its first colour opaque, like the others."""


@dataclass(frozen=True, slots=True)
class SniffedImage:
    """What the header says. Width and height are those of the stored pixels, before any EXIF orientation."""

    format: str
    mime: str
    width: int
    height: int
    animated: bool

    @property
    def extension(self) -> str:
        return extension(self.format)


def sniff(data: bytes, limits: Limits = DEFAULT_LIMITS) -> SniffedImage:
    """Identify an image and check it against `limits`; costs about a millisecond.

    Raises:
        BadImage: not an image, an image of a kind that is not read (SVG among them), a broken header, or fewer bytes
            than its pixels need.
        TooLarge: more bytes, pixels, scans or texts than the limits allow; the message names figure and limit.
    """
    image, name = open_checked(data, limits)
    with image:
        return describe(image, name)


def describe(image: Image.Image, name: str) -> SniffedImage:
    """What the header of an opened image says.

    Raises:
        BadImage: what stands before the second frame is broken.
    """
    try:
        animated = name in _MAY_MOVE and bool(getattr(image, "is_animated", False))
    except Exception as error:
        raise BadImage(f"a frame of the {name} is broken: {in_short(error)}") from error
    return SniffedImage(
        format=name,
        mime=f"image/{name}",
        width=image.width,
        height=image.height,
        animated=animated,
    )


def open_checked(data: bytes, limits: Limits) -> tuple[Image.Image, str]:
    """A lazily opened image whose header is within the limits, and the name of its format.

    Raises:
        BadImage, TooLarge: as `sniff`.
    """
    if len(data) > limits.max_bytes:
        raise TooLarge(f"the file has {len(data):,} bytes, the limit is {limits.max_bytes:,}")
    name = headers.identify(data)
    headers.check_cost(data, name, limits)
    try:
        image = readers.lazily_opened(data, name)
        check_pixels(image.width, image.height, name, limits)
        check_length(image, name, data, limits)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise TooLarge(f"the {name} has far more pixels than the limit: save it smaller") from error
    except UnidentifiedImageError as error:
        rarely = " or it is of a kind that is not read" if name in _MANY_KINDS else ""
        broken = f"the file begins like {name} but its header is broken{rarely}: send {readers.READ_HERE}"
        raise BadImage(broken) from error
    except ImgpipeError:
        raise
    except Exception as error:
        if str(error).startswith("Unsupported"):
            raise BadImage(f"the {name} is of a kind that is not read: send {readers.READ_HERE}") from error
        # Pillow's readers raise whatever the broken header led them to: struct.error, KeyError, OverflowError ...
        raise BadImage(f"the {name} header cannot be read: {in_short(error)}") from error
    if name in _PROFILE:
        image.info["icc_profile"] = _PROFILE[name](data)
    elif not isinstance(image.info.get("icc_profile", b""), bytes):
        del image.info["icc_profile"]  # a TIFF's tag may hold numbers
    if name == "jpeg":
        headers.check_scans(data, image.width * image.height, limits)
    elif name == "png":
        _complete_png(image, data)
    return image, name


def _complete_png(image: Image.Image, data: bytes) -> None:
    """Check and correct what Pillow ignores or treats differently from browsers.

    Raises:
        BadImage: a checksum is wrong, or there is no palette.
    """
    png_chunks.check_sums(data)
    if png_chunks.content_of(data, b"IHDR")[9] == png_chunks.INDEXED and not png_chunks.content_of(data, b"PLTE"):
        raise BadImage("the png has no palette, so nobody knows its colours")
    if "exif" not in image.info and (exif := png_chunks.content_of(data, b"eXIf")):
        image.info["exif"] = exif  # it may stand after the pixels, where Pillow finds it only by decoding them
    if "transparency" in image.info:
        image.info["transparency"] = _transparent_level(image, data)


def _transparent_level(image: Image.Image, data: bytes) -> object:
    """The transparent level or colour of a PNG, in the depth of the decoded pixels: Pillow leaves it in that of the
    file, so it would match no pixel or the wrong ones.

    As in browsers, a tRNS chunk is ignored if it has more entries than a palette can have, or precedes the palette.
    """
    found, depth = image.info["transparency"], png_chunks.content_of(data, b"IHDR")[8]
    if image.mode in ("1", "L"):
        level = int.from_bytes(png_chunks.content_of(data, b"tRNS")[:2]) & (1 << depth) - 1
        return level * {1: 255, 2: 85, 4: 17, 8: 1}[depth]
    if image.mode == "RGB" and depth == 16 and isinstance(found, tuple):
        return tuple(level >> 8 for level in found)
    if isinstance(found, bytes) and (len(found) > _MOST_COLOURS or _is_ahead_of_palette(data)):
        return _OPAQUE
    return found


def _is_ahead_of_palette(png: bytes) -> bool:
    """Whether tRNS precedes PLTE."""
    return next(kind for kind, *_ in png_chunks.chunks(png) if kind in (b"tRNS", b"PLTE")) == b"tRNS"


def in_short(error: Exception) -> str:
    """A reader's error in words for an uploader: its first sentence, unless that is about the reader's internals."""
    if isinstance(error, SyntaxError) and isinstance(error.__cause__, Exception):
        return in_short(error.__cause__)  # Pillow's readers wrap whatever they meet
    if isinstance(error, (ArithmeticError, LookupError, TypeError, struct.error)):
        return "its numbers make no sense"
    text = str(error).partition(". ")[0].partition("\n")[0].strip()
    if not text or text.startswith("decoder error"):
        return "its pixels cannot be decoded"
    return "it is damaged or cut short" if text.lower().startswith(_OF_THE_READER) else text
