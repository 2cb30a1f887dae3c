"""XMP in GIFs: an application extension whose bytes are the text itself, not blocks with their lengths.

XMP specification, part 3, section 1.1.2. What follows the text makes readers that take it for blocks find the end.
"""

from __future__ import annotations

from imgpipe_orchestration.imaging.limits import Limits

_HEAD = b"!\xff\x0bXMP DataXMP"
_TRAILER = b"\x01\xff\xfe\xfd"
"""The first of the 258 bytes that follow the text: from 1 and 255 down to 0."""


def xmp(data: bytes, limits: Limits) -> bytes:
    """The text; empty where there is none, or one longer than EXIF may be."""
    at = data.find(_HEAD)
    if at < 0:
        return b""
    start = at + len(_HEAD)
    packet, end, _ = data[start : start + limits.max_exif_bytes].partition(_TRAILER)
    return packet if end else b""
