"""What these bytes are, from their content alone and without decoding a pixel.

An upload's file name and Content-Type do not count. Limits are checked here, so that what passes can be opened; some
before Pillow may see the file, for its WebP reader allocates the whole canvas on opening, and no reader counts a JPEG's
scans and a PNG's texts.
"""

import io
from dataclasses import dataclass
from functools import lru_cache

from PIL import AvifImagePlugin, ExifTags, Image, PngImagePlugin, TiffImagePlugin, UnidentifiedImageError

from imgpipe_orchestration.errors import BadImage, ImgpipeError, TooLarge
from imgpipe_orchestration.imaging import limits
from imgpipe_orchestration.imaging.formats import READ_HERE, extension
from imgpipe_orchestration.imaging.limits import check_pixels
from imgpipe_orchestration.imaging.reading import parts, svg
from imgpipe_orchestration.imaging.reading.metadata import note_colours, orientation_of

_SIGNATURES = {
    b"\xff\xd8\xff": "jpeg",
    b"\x89PNG\r\n\x1a\n": "png",
    b"GIF87a": "gif",
    b"GIF89a": "gif",
    b"II*\0": "tiff",
    b"MM\0*": "tiff",
    b"II+\0": "tiff",
    b"BM": "bmp",
}
_HEIC_BRANDS = frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"})
_AVIF_BRANDS = frozenset({b"avif", b"avis"})
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
_MAY_MOVE = frozenset({"gif", "webp", "avif", "png"})
"""Formats in which several pictures are an animation. In TIFF they are pages, in JPEG and HEIC depth or gain maps."""
_MANY_KINDS = frozenset({"tiff", "bmp", "jpeg", "heic", "avif"})
"""Formats with variants that none of our readers knows, such as 16-bit floats, videos or another codec's pixels."""
_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
"""By the colour type in a PNG's IHDR."""
_INDEXED = 3
"""The colour type of a PNG with a palette."""
PngImagePlugin.MAX_TEXT_CHUNK = limits.MAX_ICC_BYTES  # Pillow's limit for a PNG's profile, too
AvifImagePlugin.DEFAULT_MAX_THREADS = 1
"""Threads that decode one AVIF. Pillow's default is one for each core, but the other cores have images of their own."""


@dataclass(frozen=True, slots=True)
class Original:
    """An opened original: its header is known and within the limits, its pixels are not decoded yet."""

    data: bytes
    image: Image.Image
    format: str
    width: int
    height: int
    """Of the stored pixels, before any EXIF orientation."""
    animated: bool
    orientation: int
    """EXIF, 1 to 8."""

    @property
    def mime(self) -> str:
        return f"image/{self.format}"

    @property
    def extension(self) -> str:
        return extension(self.format)

    @property
    def upright_size(self) -> tuple[int, int]:
        """Width and height as the image is meant to be seen."""
        return self.stored((self.width, self.height))

    def stored(self, size: tuple[int, int]) -> tuple[int, int]:
        """An upright size as the pixels are stored, and vice versa."""
        return (size[1], size[0]) if self.orientation >= 5 else size


def sniff(data: bytes, *, max_bytes: int = limits.MAX_BYTES) -> Original:
    """Identify an image and check it against the limits; costs about a millisecond.

    Raises:
        BadImage: not an image, an image of a kind that is not read (SVG among them), a broken header, or fewer bytes
            than its pixels need.
        TooLarge: more bytes, pixels, scans or texts than the limits allow; the message names figure and limit.
    """
    if len(data) > max_bytes:
        raise TooLarge(f"the file has {len(data):,} bytes, the limit is {max_bytes:,}")
    name = _identified(data)
    _check_cost(data, name)
    image = _opened(data, name)
    if not isinstance(image.info.get("icc_profile", b""), bytes):
        del image.info["icc_profile"]  # a TIFF's tag may hold numbers
    if name == "jpeg":
        parts.check_scans(data, image.width * image.height)
    elif name == "png":
        _complete_png(image, data)
    note_colours(image, data, name)
    try:
        animated = name in _MAY_MOVE and bool(getattr(image, "is_animated", False))
    except Exception as error:
        raise BadImage(f"a frame of the {name} is damaged or cut short", detail=str(error)) from error
    return Original(data, image, name, *image.size, animated, orientation_of(image))


def _opened(data: bytes, name: str) -> Image.Image:
    """The lazily opened image, whose pixels are within the limits."""
    if name == "heic":
        _enable_heic()
    try:
        # Only the reader that the signature says, by Pillow's name for it.
        image = Image.open(io.BytesIO(data), formats=["HEIF" if name == "heic" else name.upper()])
        if isinstance(image, TiffImagePlugin.TiffImageFile) and _is_shown_wrong(image):
            raise UnidentifiedImageError
        check_pixels(image.width, image.height, name)
        _check_length(image, name, data)
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
    return image


def _identified(data: bytes) -> str:
    """Our name for the format whose signature `data` begins with; what is not read is refused by its name."""
    if not data:
        raise BadImage("the file is empty: it has 0 bytes")
    for signature, name in _SIGNATURES.items():
        if data.startswith(signature):
            return name
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "webp"
    if data[4:8] == b"ftyp":  # brands: ISO/IEC 14496-12, section 4.3
        brands = {data[8:12]} | {data[i : i + 4] for i in range(16, min(int.from_bytes(data[:4]), 256), 4)}
        if brands & _AVIF_BRANDS:
            return "avif"
        if brands & _HEIC_BRANDS:
            return "heic"
        brand = data[8:12].decode("ascii", "replace")
        raise BadImage(f"not an image but a video or another media file of brand {brand!r}: send {READ_HERE}")
    for signature, title in _OTHER_IMAGES.items():
        if data.startswith(signature):
            raise BadImage(f"{title} is not read: send {READ_HERE}")
    if svg.is_svg(data):
        raise BadImage(f"SVG is not accepted here, only as a user's logo (logo_image): send {READ_HERE}")
    raise BadImage(f"not an image {_guessed(data)}: send {READ_HERE}")


def _guessed(data: bytes) -> str:
    """What people would call a file that is not an image."""
    if data.startswith(b"%PDF"):
        return "but a PDF"
    if data.startswith(b"PK"):
        return "but a ZIP archive or an office document"
    if data[:1024].lstrip(b"\xef\xbb\xbf \t\r\n").lower().startswith((b"<html", b"<!doctype html")):
        return "but a web page"
    text = data[:1024].decode("utf-8", "replace")[:-1]  # the last letter may be cut through
    if text and "\ufffd" not in text and all(letter.isprintable() or letter.isspace() for letter in text):
        return "but plain text"
    return "of a kind that is read"


def _check_cost(data: bytes, name: str) -> None:
    """Refuse what would cost much merely to open, and kinds that are not read of formats that are."""
    if name == "webp":
        kind = "animated webp" if parts.is_animated_webp(data) else name
        check_pixels(*parts.webp_size(data), kind)
    parts.check_parts(data, name)
    if name == "bmp" and data[30:34] in _RUNS:
        raise BadImage("a run-length encoded BMP is not read: save it as PNG or JPEG")
    if name == "tiff" and parts.is_raw(data):
        raise BadImage(f"a camera's raw file is not read: develop it and send {READ_HERE}")
    if name == "png":
        if data[12:16] == b"CgBI":
            raise BadImage(f"a PNG in the form that Xcode gives it for iPhones (CgBI) is not read: {_FROM_XCODE}")
        texts = sum(kind in (b"zTXt", b"iTXt") for kind, *_ in parts.chunks(data))
        if texts > limits.MAX_TEXT_CHUNKS:
            raise TooLarge(f"the PNG has {texts} compressed texts, the limit is {limits.MAX_TEXT_CHUNKS}")


@lru_cache(maxsize=1)
def _enable_heic() -> None:
    """Add the reader of HEIC to Pillow's."""
    import pi_heif  # the decoders of pillow-heif without its encoders, in a third of the size

    # One, as for AVIF. Each thread also takes up to 128 MB of the addresses that a worker may use.
    pi_heif.options.DECODE_THREADS = 1
    pi_heif.register_heif_opener()


def _complete_png(image: Image.Image, data: bytes) -> None:
    """Check and correct what Pillow ignores or treats differently from browsers."""
    parts.check_sums(data)
    depth, kind = parts.content_of(data, b"IHDR")[8:10]
    if kind == _INDEXED and not parts.content_of(data, b"PLTE"):
        raise BadImage("the png has no palette, so its colours are unknown")
    if "exif" not in image.info and (exif := parts.content_of(data, b"eXIf")):
        image.info["exif"] = exif  # it may stand after the pixels, where Pillow finds it only by decoding them
    # Pillow leaves the transparent level or colour in the depth of the file, in which it would match no decoded pixel
    # or the wrong ones.
    found = image.info.get("transparency")
    if found is not None and image.mode in ("1", "L"):
        level = int.from_bytes(parts.content_of(data, b"tRNS")[:2]) & (1 << depth) - 1
        image.info["transparency"] = level * {1: 255, 2: 85, 4: 17, 8: 1}[depth]
    elif image.mode == "RGB" and depth == 16 and isinstance(found, tuple):
        image.info["transparency"] = tuple(level >> 8 for level in found)


_Tag = ExifTags.Base
_WHITE_IS_ZERO, _YCBCR, _WEBP = 0, 6, 50_001


def _is_shown_wrong(image: TiffImagePlugin.TiffImageFile) -> bool:
    """Whether Pillow opens a TIFF and would misread its pixels: in planes; in tiles whose offsets are called those of
    strips; uncompressed YCbCr with fewer colours than pixels; WebP, which is only found out later; more than 8 bits
    with white as zero or as 10 to 14 bits; floats and 32 bits; a palette of 8 bits where the format wants 16, which
    would all be black."""
    tags = image.tag_v2
    bits, compression = max(tags.get(_Tag.BitsPerSample, (1,))), tags.get(_Tag.Compression, 1)
    meaning = tags.get(_Tag.PhotometricInterpretation)
    return (
        (tags.get(_Tag.PlanarConfiguration) == 2 and tags.get(_Tag.SamplesPerPixel, 1) > 1)
        or (_Tag.TileWidth in tags and _Tag.TileOffsets not in tags)
        or compression == _WEBP
        or (compression == 1 and meaning == _YCBCR)
        or (bits > 8 and (meaning == _WHITE_IS_ZERO or bits % 8 > 0))
        or image.mode in {"F", "I"}
        or (image.mode == "P" and max(tags.get(_Tag.ColorMap, ()), default=256) <= 0xFF)
    )


# The fewest bytes that so many pixels can take. A shorter file costs all its pixels, because decoders make up what is
# missing or allocate it first. WebP and CCITT fax codes have no useful bound, because honest files get very small:
# libwebp writes 16.8 megapixels of one colour in 38 bytes (lossless, method 0).

_PIXELS_A_BYTE = {"jpeg": 512, "gif": 2730, "avif": 40_000}
"""JPEG: each block of 8x8 takes at least a bit. GIF: a code of 12 bits stands for a string of the table, and none is
longer than its 4,094 entries. AVIF: honest files stay below; one may claim more than it codes, and is enlarged as it is
decoded."""
_DEFLATE = 1032
"""A PNG's largest compression ratio: 258 bytes take at least two bits (https://zlib.net/zlib_tech.html)."""
_TIFF = {1: 1, 5: 2000, 7: 2000, 8: 2000, 32773: 2000, 32946: 2000, 34925: 7200, 50000: 33_000}
"""Compression ratios that are never exceeded, by the tag Compression: none, LZW, JPEG, deflate and PackBits; LZMA,
where 273 bytes take 14 choices of 0.022 bits; Zstandard, where a block of 128 KB takes four bytes (RFC 8878,
3.1.1.2)."""


def _check_length(image: Image.Image, name: str, data: bytes) -> None:
    """Refuse an image of fewer bytes than its pixels need. `image` is opened and not decoded."""
    pixels = image.width * image.height
    most: float = _PIXELS_A_BYTE.get(name, pixels)
    if name == "png":
        depth, kind = parts.content_of(data, b"IHDR")[8:10]
        most = _DEFLATE * 8 / (depth * _CHANNELS[kind])
    elif isinstance(image, TiffImagePlugin.TiffImageFile):
        tags = image.tag_v2
        luma_only = tags.get(_Tag.PhotometricInterpretation) == _YCBCR  # up to 16 pixels share their chroma
        samples = 1 if luma_only else tags.get(_Tag.SamplesPerPixel, 1)
        bits = max(tags.get(_Tag.BitsPerSample, (1,))) * samples
        most = _TIFF.get(tags.get(_Tag.Compression, 1), pixels) * 8 / max(bits, 1)
    may_be_empty = name == "gif"  # its frame may cover little of its canvas, as small honest files do
    if pixels <= most * len(data) or (may_be_empty and pixels <= limits.EMPTY_PIXELS):
        return
    reason, advice = ("almost empty", "save it in fewer pixels") if may_be_empty else ("cut short", "save it again")
    size = f"{image.width}x{image.height} pixels"
    raise BadImage(f"the {name} is {reason}: {len(data):,} bytes cannot hold {size}; {advice}")
