"""Cropping to a shape while keeping the subject."""

from __future__ import annotations

from imgpipe_orchestration.imaging.geometry import Box, PixelBox


def crop_box(
    width: int, height: int, to_width: int, to_height: int, subject: Box, *, core: Box | None = None
) -> PixelBox:
    """The largest box of the shape `to_width`:`to_height` in a `width` x `height` image, placed over the subject.

    The box is as large as possible, so it can move along one axis only. It is centred on `subject`, and moved from
    there just as far as needed to contain `core` (the largest face, say).

    Returns:
        left, top, right, bottom in pixels, always inside the image and at least 1 pixel on each side.
    """
    if width * to_height >= height * to_width:
        box_width, box_height = max(1, min(width, round(height * to_width / to_height))), height
    else:
        box_width, box_height = width, max(1, min(height, round(width * to_height / to_width)))
    core = core or subject
    left = _place(width, box_width, (subject.left, subject.right), (core.left, core.right))
    top = _place(height, box_height, (subject.top, subject.bottom), (core.top, core.bottom))
    return left, top, left + box_width, top + box_height


def _place(length: int, window: int, subject: tuple[float, float], core: tuple[float, float]) -> int:
    """Start of a `window` on a line of `length` pixels, from subject and core as fractions of the line."""
    start = (subject[0] + subject[1]) / 2 * length - window / 2
    core_start, core_end = core[0] * length, core[1] * length
    if core_end - core_start <= window:
        start = min(max(start, core_end - window), core_start)
    else:
        start = (core_start + core_end - window) / 2
    return min(max(0, round(start)), length - window)
