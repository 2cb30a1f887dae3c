"""How much of anything an image may be. Checked from the header, before a single pixel is allocated."""

from __future__ import annotations

from dataclasses import dataclass

from imgpipe_orchestration.errors import BadImage, TooLarge


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds on one image. The defaults admit every camera's photo that fits in an upload, and bound its memory."""

    max_bytes: int = 64 * 1024 * 1024
    max_pixels: int = 50_000_000
    """50 MP: 200 MB as RGBA, the most one image may take in a worker before it is shrunk."""
    max_side: int = 30_000
    empty_pixels: int = 5_000_000
    """Pixels up to which a GIF or BMP may be mostly empty: so many cost under 100 ms and 50 MB (a GIF of 37 bytes and
    49 MP: 550 ms and 226 MB). A larger one must have enough bytes for its pixels (see `density`)."""
    max_pixels_webp: int = 17_000_000
    """WebP's decoder holds the whole canvas twice: 747 MB for a file of 186 bytes with 49 MP."""
    max_jpeg_scans: int = 100
    """Progressive JPEGs have about ten; libjpeg-turbo's authors advise a limit (each scan costs a pass over all)."""
    max_scan_pixels: int = 1_000_000_000
    """Scans times pixels: the CPU time of a progressive decode, whatever the file's length."""
    max_text_chunks: int = 16
    """Compressed PNG texts, each of which may inflate to 1 MB."""
    max_parts: int = 5_000
    """Segments, chunks or blocks beyond those that a file of its length may need (see `part_limits`)."""
    max_boxes: int = 20_000
    """Boxes of an AVIF and entries of their tables together; also the OBUs (coded units) of its pictures."""
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


def check_pixels(width: int, height: int, name: str, limits: Limits) -> None:
    """Refuse sizes that are empty or past the limits.

    Raises:
        BadImage: a side of 0.
        TooLarge: more pixels or a longer side than allowed.
    """
    if width < 1 or height < 1:
        raise BadImage(f"the {name} header claims {width}x{height} pixels: nothing to show")
    most = limits.max_pixels_webp if name == "webp" else limits.max_pixels
    if width * height > most:
        megapixels, limit = width * height / 1e6, most / 1e6
        raise TooLarge(f"the {name} has {width}x{height} = {megapixels:.1f} megapixels, the limit is {limit:g}")
    if max(width, height) > limits.max_side:
        raise TooLarge(f"the image has {width}x{height} pixels, the longest side allowed is {limits.max_side:,}")
