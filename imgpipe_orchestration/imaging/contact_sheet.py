"""Many small pictures as one: what a person looks at to see whether a batch came out right."""

import base64
import io
from collections.abc import Sequence

from PIL import Image

from imgpipe_orchestration.imaging.colour import flattened

CELL = 96
"""Pixels of one picture's square."""
_GAP = 4
_GROUND = (128, 128, 128)
_COLUMNS, _MOST = 8, 32


def contact_sheet(pictures: Sequence[bytes]) -> bytes:
    """The first 32 encoded pictures (at least one) on one sheet, row by row; WebP bytes, about 1 KB a picture."""
    shown = pictures[:_MOST]
    columns = min(_COLUMNS, len(shown))
    rows = -(-len(shown) // columns)
    step = CELL + _GAP
    sheet = Image.new("RGB", (columns * step - _GAP, rows * step - _GAP), _GROUND)
    for index, data in enumerate(shown):
        with Image.open(io.BytesIO(data)) as picture:
            small = picture.convert("RGBA")
        small.thumbnail((CELL, CELL), Image.Resampling.LANCZOS)
        row, column = divmod(index, columns)
        left = column * step + (CELL - small.width) // 2
        top = row * step + (CELL - small.height) // 2
        sheet.paste(flattened(small), (left, top))
    out = io.BytesIO()
    sheet.save(out, "WEBP", quality=70, method=4)
    return out.getvalue()


def markdown(pictures: Sequence[bytes], caption: str) -> str:
    """A contact sheet within Markdown, as Dagster's UI shows it, and a caption under it."""
    data = base64.b64encode(contact_sheet(pictures)).decode()
    return f"![what this run made](data:image/webp;base64,{data})\n\n{caption}"
