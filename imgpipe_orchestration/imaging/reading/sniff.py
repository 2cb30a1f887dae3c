"""What these bytes are, from their content alone and without decoding a pixel.

An upload's file name and Content-Type do not count. Limits are checked here, so that what passes can be opened.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from PIL import AvifImagePlugin, ExifTags, Image, ImageFile, TiffImagePlugin, UnidentifiedImageError

from imgpipe_orchestration.errors import BadImage, ImgpipeError, TooLarge
from imgpipe_orchestration.imaging.colour.cicp import note_colours
from imgpipe_orchestration.imaging.formats import READ_HERE, extension
from imgpipe_orchestration.imaging.limits import DEFAULT_LIMITS, Limits, check_pixels
from imgpipe_orchestration.imaging.reading import headers, png_chunks, tiff_directory
from imgpipe_orchestration.imaging.reading.png_chunks import CHANNELS, content_of

_MAY_MOVE = frozenset({"gif", "webp", "avif", "png"})
"""Formats in which several pictures are an animation. In TIFF they are pages, in JPEG and HEIC depth or gain maps."""

_MANY_KINDS = frozenset({"tiff", "bmp", "jpeg", "heic", "avif"})
"""Formats with variants that no reader of ours knows, such as 16-bit floats, videos or another codec's pixels."""

_PILLOW_NAME = {
    "jpeg": "JPEG",
    "png": "PNG",
    "webp": "WEBP",
    "avif": "AVIF",
    "gif": "GIF",
    "tiff": "TIFF",
    "bmp": "BMP",
    "heic": "HEIF",
}
"""Pillow's name of each format that is read. Opening is restricted to the one that the signature says."""
AvifImagePlugin.DEFAULT_MAX_THREADS = 1
"""Threads that decode one AVIF. Pillow's default is one for each core, but the other cores have images of their own."""


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
        raise BadImage(f"a frame of the {name} is damaged or cut short", detail=str(error)) from error
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
        image = _lazily_opened(data, name)
        check_pixels(image.width, image.height, name, limits)
        _check_length(image, name, data, limits)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise TooLarge(f"the {name} has far more pixels than the limit: save it smaller") from error
    except UnidentifiedImageError as error:
        rarely = " or it is of a kind that is not read" if name in _MANY_KINDS else ""
        broken = f"the file begins like {name} but its header is broken{rarely}: send {READ_HERE}"
        raise BadImage(broken) from error
    except ImgpipeError:
        raise
    except Exception as error:
        if str(error).startswith("Unsupported"):
            raise BadImage(f"the {name} is of a kind that is not read: send {READ_HERE}") from error
        # Pillow's readers raise whatever the broken header led them to: struct.error, KeyError, OverflowError ...
        raise BadImage(f"the {name} header is damaged or cut short", detail=str(error)) from error
    if not isinstance(image.info.get("icc_profile", b""), bytes):
        del image.info["icc_profile"]  # a TIFF's tag may hold numbers
    if name == "jpeg":
        headers.check_scans(data, image.width * image.height, limits)
    elif name == "png":
        _complete_png(image, data)
    note_colours(image, data, name)
    return image, name


@lru_cache(maxsize=1)
def _enable_heic() -> None:
    """Add the reader of HEIC to Pillow's."""
    import pi_heif  # the decoders of pillow-heif without its encoders, in a third of the size

    # One, as for AVIF. Each thread also takes up to 128 MB of the addresses that a worker may use.
    pi_heif.options.DECODE_THREADS = 1
    pi_heif.register_heif_opener()


def _lazily_opened(data: bytes, name: str) -> Image.Image:
    """The image with its header read and its pixels not decoded.

    Raises:
        UnidentifiedImageError: a TIFF whose pixels Pillow would show wrong.
        Exception: whatever the reader raises for a broken header.
    """
    if name == "heic":
        _enable_heic()
    image = Image.open(io.BytesIO(data), formats=[_PILLOW_NAME[name]])
    if isinstance(image, TiffImagePlugin.TiffImageFile) and tiff_directory.is_shown_wrong(image):
        raise UnidentifiedImageError
    return image


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
    file, so it would match no pixel or the wrong ones."""
    found, depth = image.info["transparency"], png_chunks.content_of(data, b"IHDR")[8]
    if image.mode in ("1", "L"):
        level = int.from_bytes(png_chunks.content_of(data, b"tRNS")[:2]) & (1 << depth) - 1
        return level * {1: 255, 2: 85, 4: 17, 8: 1}[depth]
    if image.mode == "RGB" and depth == 16 and isinstance(found, tuple):
        return tuple(level >> 8 for level in found)
    return found


# --- the fewest bytes that so many pixels can take: a shorter file is incomplete, yet all its pixels would be allocated
#
# WebP and CCITT fax codes have no useful bound, because honest files get very small: libwebp writes 16.8 megapixels of
# one colour in 38 bytes (lossless, method 0), and libtiff a blank page of 49 megapixels in 3,630. A bound would refuse
# such pictures, and an attacker could just append bytes.

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


def _check_length(image: Image.Image, name: str, data: bytes, limits: Limits) -> None:
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
