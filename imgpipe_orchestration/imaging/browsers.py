"""What browsers show without our help."""

SHOWN_BY_BROWSERS = frozenset({"image/jpeg", "image/png", "image/gif", "image/webp", "image/avif", "image/bmp"})
"""Media types of originals that can stand in for what is made of them. Not SVG: it is refused at upload."""
