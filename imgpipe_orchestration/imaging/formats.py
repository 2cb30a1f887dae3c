"""Image formats by our names for them."""

from typing import Literal

Format = Literal["avif", "webp", "jpeg", "png"]
"""What we write."""
MIME_OF = {"avif": "image/avif", "webp": "image/webp", "jpeg": "image/jpeg", "png": "image/png"}
"""Media types of the formats that we write, best format first."""
SHOWN_BY_BROWSERS = frozenset({"image/jpeg", "image/png", "image/gif", "image/webp", "image/avif", "image/bmp"})
"""Media types of originals that can stand in for their variants."""
READ_HERE = "JPEG, PNG, WebP, AVIF, HEIC, GIF, TIFF or BMP"
"""What a message asks for in place of a file that is not read."""


def extension(name: str) -> str:
    """The usual file extension of a format, without the dot."""
    return {"jpeg": "jpg", "tiff": "tif"}.get(name, name)
