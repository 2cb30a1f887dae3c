"""Charts, screenshots, text and codes at their own pixels: without loss they go into fewer bytes than at a quality that
shows them well, down to a twentieth.

Reduced, their edges have a thousand shades, and a lossy file is the smaller one, as it is for drawings in large flat
areas. So a lossless file is made where it may pay, and kept where it is smaller.
"""

from __future__ import annotations

import numpy as np
from PIL import Image

_MOST_COLOURS = 4096
"""A page of text in five colours has 765 with the shades of its edges, a logo on transparency 1,300 to 3,000, a
screenshot with photographs 30,000."""
_MOST_CHANGES = 0.75
"""Of the pixels, those that differ from their left neighbour: 0.4 to 0.6 in a page of text, 0.02 in a chart, 0.6 to 1
in most photographs, of which grey ones have few colours, too."""
_CHANGES_FOR_A_BYTE = 4.0
"""Changes that a byte of the lossy file may stand for: a byte without loss holds 1.3 to 3, and of repeated letters 20.
Soft photographs in grey have 20 to 30 for each of their lossy file's, drawings in flat areas 4 and more."""
_ONE_TRIP = 14_600
"""Bytes that arrive at once (ten segments of 1460, RFC 6928): what is smaller gains nothing by being smaller still."""
_EVERY = 8
"""Lines of which one is looked at for changes."""


def has_few_colours(image: Image.Image) -> bool:
    """Whether it may be text or a drawing, or is grey: 2 ms for 4 megapixels in many colours, 10 in few."""
    return image.getcolors(_MOST_COLOURS) is not None


def may_gain(image: Image.Image, lossy_bytes: int) -> bool:
    """Whether a file without loss is worth trying.

    Args:
        image: RGB or RGBA, in few colours.
        lossy_bytes: what the picture takes with loss, in the same format.
    """
    if lossy_bytes <= _ONE_TRIP:
        return False
    lines = np.asarray(image)[::_EVERY]
    changes = float((lines[:, 1:] != lines[:, :-1]).any(axis=-1).mean()) if image.width > 1 else 0.0
    most = _CHANGES_FOR_A_BYTE * lossy_bytes / (image.width * image.height)
    return changes <= min(_MOST_CHANGES, most)
