"""How much of anything an image may be. Checked from the header, before a single pixel is allocated. These admit
every camera's photo that fits in an upload, and bound its memory."""

from imgpipe_orchestration.errors import BadImage, TooLarge

MAX_BYTES = 64 * 1024 * 1024
MAX_SIDE = 65_535
"""The longest side of a JPEG and of an AVIF; a panorama's or a strip's."""
EMPTY_PIXELS = 5_000_000
"""Pixels up to which a GIF may be mostly empty: so many cost under 100 ms and 50 MB (a GIF of 37 bytes and
49 MP: 550 ms and 226 MB). A larger one must have enough bytes for its pixels (see `sniff`)."""
MAX_PIXELS_WEBP = 80_000_000
"""WebP's decoder holds the whole canvas twice, and a worker has 1.5 GB."""
MAX_PIXELS_ANIMATED_WEBP = 17_000_000
"""Of an animation everybody who opens it pays for the canvas: 747 MB for a file of 186 bytes with 49 MP."""
MAX_JPEG_SCANS = 100
"""Progressive JPEGs have about ten; libjpeg-turbo's authors advise a limit (each scan costs a pass over all)."""
MAX_SCAN_PIXELS = 1_000_000_000
"""Scans times pixels: the CPU time of a progressive decode, whatever the file's length."""
MAX_TEXT_CHUNKS = 16
"""Compressed PNG texts, each of which may inflate to MAX_ICC_BYTES."""
MAX_PARTS = 5_000
"""Segments, chunks or blocks beyond those that a file of its length may need (see `reading.parts`)."""
MAX_ENTRIES = 1_000
"""Entries of a TIFF's directory, or of EXIF's; cameras write under a hundred."""
MAX_VALUES = 65_000
"""Numbers in a TIFF's directory, each of which becomes a Python object. Each strip has two."""
MAX_EXIF_BYTES = 1024 * 1024
"""EXIF of a JPEG, which Pillow copies whole with each further segment; in other formats more is ignored. Cameras
write one segment of at most 64 KB."""
MAX_TABLE_BYTES = 64 * 1024
"""Quantization tables of a JPEG, over which Pillow runs a Python loop. It has room for four, of 65 or 129 bytes."""
MAX_ICC_BYTES = 4 * 1024 * 1024
"""Larger colour profiles are ignored: the largest printer profiles have 3 MB."""

_allowed = {"pixels": 100_000_000}


def allow(*, megapixels: float) -> None:
    """Set the pixels of one image that this process takes: IMAGE_MAX_MEGAPIXELS. Pillow's own limit follows at twice as
    many: `check_pixels` refuses before it, and names the setting."""
    from PIL import Image

    _allowed["pixels"] = round(megapixels * 1e6)
    Image.MAX_IMAGE_PIXELS = 2 * _allowed["pixels"]


def check_pixels(width: int, height: int, name: str) -> None:
    """Refuse sizes that are empty or past the limits.

    Raises:
        BadImage: a side of 0.
        TooLarge: more pixels or a longer side than allowed.
    """
    if width < 1 or height < 1:
        raise BadImage(f"the {name} header claims {width}x{height} pixels: nothing to show")
    most = _allowed["pixels"]
    setting = " (setting IMAGE_MAX_MEGAPIXELS)"
    of_format = {"webp": MAX_PIXELS_WEBP, "animated webp": MAX_PIXELS_ANIMATED_WEBP}.get(name, most)
    if of_format < most:
        most, setting = of_format, " for this format: save it smaller, or as JPEG"
    if width * height > most:
        size = f"{width}x{height} = {width * height / 1e6:.1f} megapixels"
        raise TooLarge(f"the {name} has {size}, the limit is {most / 1e6:g}{setting}")
    if max(width, height) > MAX_SIDE:
        raise TooLarge(f"the image has {width}x{height} pixels, the longest side allowed is {MAX_SIDE:,}")
