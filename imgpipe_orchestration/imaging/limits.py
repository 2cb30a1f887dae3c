"""How much of anything an image may be. Checked from the header, before a single pixel is allocated."""

from dataclasses import dataclass

from imgpipe_orchestration.errors import BadImage, TooLarge


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds on one image. The defaults admit every camera's photo that fits in an upload, and bound its memory."""

    max_bytes: int = 64 * 1024 * 1024
    max_pixels: int | None = None
    """None: as many as `allow` was told, IMAGE_MAX_MEGAPIXELS."""
    max_side: int = 65_535
    """The longest side of a JPEG and of an AVIF; a panorama's or a strip's."""
    empty_pixels: int = 5_000_000
    """Pixels up to which a GIF may be mostly empty: so many cost under 100 ms and 50 MB (a GIF of 37 bytes and
    49 MP: 550 ms and 226 MB). A larger one must have enough bytes for its pixels (see `sniff`)."""
    max_pixels_webp: int = 80_000_000
    """WebP's decoder holds the whole canvas twice, and a worker has 1.5 GB."""
    max_pixels_animated_webp: int = 17_000_000
    """Of an animation everybody who opens it pays for the canvas: 747 MB for a file of 186 bytes with 49 MP."""
    max_jpeg_scans: int = 100
    """Progressive JPEGs have about ten; libjpeg-turbo's authors advise a limit (each scan costs a pass over all)."""
    max_scan_pixels: int = 1_000_000_000
    """Scans times pixels: the CPU time of a progressive decode, whatever the file's length."""
    max_text_chunks: int = 16
    """Compressed PNG texts, each of which may inflate to 1 MB."""
    max_parts: int = 5_000
    """Segments, chunks or blocks beyond those that a file of its length may need (see `reading.parts`)."""
    max_entries: int = 1_000
    """Entries of a TIFF's directory, or of EXIF's; cameras write under a hundred."""
    max_values: int = 65_000
    """Numbers in a TIFF's directory, each of which becomes a Python object. Each strip has two."""
    max_exif_bytes: int = 1024 * 1024
    """EXIF of a JPEG, which Pillow copies whole with each further segment; in other formats more is ignored. Cameras
    write one segment of at most 64 KB."""
    max_table_bytes: int = 64 * 1024
    """Quantization tables of a JPEG, over which Pillow runs a Python loop. It has room for four, of 65 or 129 bytes."""
    max_icc_bytes: int = 4 * 1024 * 1024
    """Larger colour profiles are ignored: the largest printer profiles have 3 MB."""


DEFAULT_LIMITS = Limits()
_allowed = {"pixels": 100_000_000}


def allow(*, megapixels: float) -> None:
    """Set the pixels of one image that this process takes: IMAGE_MAX_MEGAPIXELS. Pillow's own limit follows at twice as
    many: `check_pixels` refuses before it, and names the setting."""
    from PIL import Image

    _allowed["pixels"] = round(megapixels * 1e6)
    Image.MAX_IMAGE_PIXELS = 2 * _allowed["pixels"]


def check_pixels(width: int, height: int, name: str, limits: Limits) -> None:
    """Refuse sizes that are empty or past the limits.

    Raises:
        BadImage: a side of 0.
        TooLarge: more pixels or a longer side than allowed.
    """
    if width < 1 or height < 1:
        raise BadImage(f"the {name} header claims {width}x{height} pixels: nothing to show")
    most = limits.max_pixels or _allowed["pixels"]
    setting = " (setting IMAGE_MAX_MEGAPIXELS)"
    of_format = {"webp": limits.max_pixels_webp, "animated webp": limits.max_pixels_animated_webp}.get(name, most)
    if of_format < most:
        most, setting = of_format, " for this format: save it smaller, or as JPEG"
    if width * height > most:
        size = f"{width}x{height} = {width * height / 1e6:.1f} megapixels"
        raise TooLarge(f"the {name} has {size}, the limit is {most / 1e6:g}{setting}")
    if max(width, height) > limits.max_side:
        raise TooLarge(f"the image has {width}x{height} pixels, the longest side allowed is {limits.max_side:,}")
