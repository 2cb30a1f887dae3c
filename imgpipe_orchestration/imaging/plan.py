"""How large each size comes out, and the crops that keep the subject: pure geometry, decided before a pixel is
touched."""

from math import ceil

from imgpipe_orchestration.imaging.geometry import Box, PixelBox, fit_within
from imgpipe_orchestration.imaging.recipe import Recipe, Size

_CLEAR_SPACE = 0.05
"""Margin around what is shown whole, as a share of the box; on two sides at least."""


def output_size(width: int, height: int, size: Size, whole: Box | None = None) -> tuple[int, int]:
    """The pixels that a size has for an image of `width` x `height`; nothing is enlarged.

    Args:
        whole: what a crop must show all of, beyond the image where need be.
    """
    if size.fit == "within":
        return fit_within(width, height, size.width, size.height)
    window = crop_window(width, height, size.width, size.height, whole)
    return min(window[0], size.width), min(window[1], size.height)


def working_size(width: int, height: int, recipe: Recipe) -> tuple[int, int]:
    """The size to which an original is shrunk first: the smallest from which every size can be made in full.

    Usually that of the largest `within` size; a tall portrait needs more, or its wide header would come out small.
    """
    best = (1, 1)
    for size in recipe.sizes:
        if size.fit == "within":
            candidate = fit_within(width, height, size.width, size.height)
        else:
            scale = min(1.0, max(size.width / width, size.height / height))
            candidate = min(width, ceil(width * scale - 1e-9)), min(height, ceil(height * scale - 1e-9))
        best = max(best, candidate, key=lambda pair: pair[0] * pair[1])
    return best


def crop_window(width: int, height: int, to_width: int, to_height: int, whole: Box | None = None) -> tuple[int, int]:
    """Sides, pixels, of the largest box of the shape `to_width`:`to_height` in a `width` x `height` image.

    Where that would cut `whole`, they are those of the smallest box of the shape that holds it with clear space around;
    it reaches beyond the image.
    """
    if width * to_height >= height * to_width:
        window = max(1, min(width, round(height * to_width / to_height))), height
    else:
        window = width, max(1, min(height, round(width * to_height / to_width)))
    if whole is None:
        return window
    held = (whole.right - whole.left) * width, (whole.bottom - whole.top) * height
    if held[0] <= window[0] and held[1] <= window[1]:
        return window
    scale = max(held[0] / to_width, held[1] / to_height) / (1 - 2 * _CLEAR_SPACE)
    return ceil(scale * to_width), ceil(scale * to_height)


def crop_box(
    width: int,
    height: int,
    to_width: int,
    to_height: int,
    subject: Box,
    *,
    core: Box,
    beyond: bool = False,
) -> PixelBox:
    """A box of the shape `to_width`:`to_height` in a `width` x `height` image, placed over the subject.

    The box is as large as possible, so it can move along one axis only. It is centred on `subject`, and moved from
    there just as far as needed to contain `core` (the largest face, say).

    Args:
        beyond: a box that cannot contain `core` is made larger until it can, and reaches beyond the image.

    Returns:
        left, top, right, bottom in pixels, at least 1 pixel on each side; inside the image unless `beyond`.
    """
    box_width, box_height = crop_window(width, height, to_width, to_height, core if beyond else None)
    left = _place(width, box_width, (subject.left, subject.right), (core.left, core.right))
    top = _place(height, box_height, (subject.top, subject.bottom), (core.top, core.bottom))
    return left, top, left + box_width, top + box_height


def _place(length: int, window: int, subject: tuple[float, float], core: tuple[float, float]) -> int:
    """Start of a `window` on a line of `length` pixels, from subject and core as fractions of the line."""
    start = (subject[0] + subject[1]) / 2 * length - window / 2
    core_start, core_end = core[0] * length, core[1] * length
    if core_end - core_start <= window <= length:
        start = min(max(start, core_end - window), core_start)
    else:
        start = (core_start + core_end - window) / 2
    return round(start) if window > length else min(max(0, round(start)), length - window)
