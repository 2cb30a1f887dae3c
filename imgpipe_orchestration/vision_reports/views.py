"""The view of an image that the model is shown.

`view` runs in a worker process (`imaging.workshop`), because the image may be hostile. What this module imports, each
worker does.
"""

from dataclasses import asdict, dataclass
from typing import Any

VIEW_SIDE = 1280
"""Longest side of the view for the model and the report, pixels; small defects are still visible at this size."""
VIEW_QUALITY = 85


@dataclass(frozen=True, slots=True)
class View:
    """An upright sRGB JPEG, and figures: the original's size and what was measured."""

    jpeg: bytes
    measured: dict[str, Any]


def view(data: bytes) -> View:
    """Decode an image, shrink it to `VIEW_SIDE` and measure it.

    Raises:
        BadImage, TooLarge: as `imaging.render.render`.
    """
    from imgpipe_orchestration.imaging.colour import flattened
    from imgpipe_orchestration.imaging.encoding.encode import encode
    from imgpipe_orchestration.imaging.measuring import dominant_colours, exposure, sharpness
    from imgpipe_orchestration.imaging.recipe import Recipe, Size
    from imgpipe_orchestration.imaging.render import prepare
    from imgpipe_orchestration.imaging.resize import shrink_within

    recipe = Recipe(sizes=(Size("view", VIEW_SIDE, VIEW_SIDE, "within"),), formats=("jpeg",))
    prepared = prepare(data, recipe)
    picture = flattened(prepared.image)
    small = shrink_within(picture, 512, 512)
    measured = {
        "width": prepared.source.width,
        "height": prepared.source.height,
        "format": prepared.source.format,
        "sharpness": round(sharpness(small), 3),
        **{name: round(value, 3) for name, value in asdict(exposure(small)).items()},
        "colours": [colour.hex for colour in dominant_colours(small, most=4)],
        "notes": list(prepared.notes),
    }
    return View(encode(picture, "jpeg", VIEW_QUALITY, recipe), measured)
