"""Charts, screenshots, text and codes in their original size: lossless files are smaller than lossy ones of a quality
that shows them well, down to a twentieth.

Once they are shrunk their edges have a thousand shades, and the lossy file is smaller; so it is for drawings in large
flat areas. So a lossless file is made where it may pay, and kept where it is smaller.
"""

from __future__ import annotations

import numpy as np
from PIL import Image

_MOST_COLOURS = 4096
"""Colours up to which a lossless file may pay. A page of text in five colours has 765 with the shades of its edges, a
logo on transparency 1,300 to 3,000, a screenshot with photographs 30,000."""
_MOST_CHANGES = 0.75
"""Share of pixels that differ from their left neighbour, up to which a lossless file may pay: 0.4 to 0.6 in a page of
text, 0.02 in a chart, 0.6 to 1 in most photographs (grey photographs have few colours as well)."""
_MOST_CHANGES_DRAWN = 0.4
"""Such a share in drawings with many colours; 0.5 to 1 in 130 photographs of 131 at 2400 px."""
_CHANGES_FOR_A_BYTE = 4.0
"""Such changes per byte of the lossy file, up to which a lossless file may be smaller: it codes 1.3 to 3 per byte, or
20 in repeated letters. Lossy files code 20 to 30 per byte of soft grey photographs, and 4 or more of flat drawings."""
_ONE_TRIP = 14_600
"""Bytes that arrive in one round trip (ten segments of 1460, RFC 6928); a smaller file is no faster."""
_EVERY = 8
"""Changes are counted in one of so many rows."""


def is_drawn(image: Image.Image) -> bool:
    """Whether it may be text, a drawing or grey. Takes 0.7 ms more than `has_few_colours`."""
    return has_few_colours(image) or _changes(image) <= _MOST_CHANGES_DRAWN


def has_few_colours(image: Image.Image) -> bool:
    """Whether it may be text, a drawing or grey; takes 2 ms for 4 megapixels with many colours, 10 ms with few."""
    return image.getcolors(_MOST_COLOURS) is not None


def may_gain(image: Image.Image, lossy_bytes: int) -> bool:
    """Whether a lossless file is worth trying.

    Args:
        image: RGB or RGBA, with few colours.
        lossy_bytes: size of its lossy file in the same format.
    """
    if lossy_bytes <= _ONE_TRIP:
        return False
    most = _CHANGES_FOR_A_BYTE * lossy_bytes / (image.width * image.height)
    return _changes(image) <= min(_MOST_CHANGES, most)


def _changes(image: Image.Image) -> float:
    """The share of pixels that differ from their left neighbour."""
    rows = image.resize((image.width, -(-image.height // _EVERY)), Image.Resampling.NEAREST)
    colours = np.asarray(rows.convert("RGBA")).view(np.uint32)[..., 0]
    return float((colours[:, 1:] != colours[:, :-1]).mean()) if image.width > 1 else 0.0
