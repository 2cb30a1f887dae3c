"""One picture to every size in every format."""

import hashlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal

from PIL import Image

from imgpipe_orchestration.imaging.encoding.encode import encode, encode_lossless
from imgpipe_orchestration.imaging.encoding.picture import Picture, has_few_colours, may_gain
from imgpipe_orchestration.imaging.encoding.search import Encoded, search
from imgpipe_orchestration.imaging.formats import Format
from imgpipe_orchestration.imaging.geometry import PixelBox
from imgpipe_orchestration.imaging.plan import crop_box, output_size
from imgpipe_orchestration.imaging.recipe import Recipe, Size
from imgpipe_orchestration.imaging.resize import shrink_onto
from imgpipe_orchestration.imaging.subject.focus import FocalBox

Background = Literal["original", "removed"]
_MISSED = 2.0
"""Points by which a lossy file may miss its target before a lossless one is tried in its place."""


@dataclass(frozen=True, slots=True)
class Variant:
    """One file: a size in a format. It can be pickled."""

    size: str
    """Name of the size in the recipe."""
    format: Format
    background: Background
    width: int
    height: int
    data: bytes
    sha256: str
    """Hex digest of `data`."""
    quality: int
    """In the encoder's own scale; 0 for PNG, and for WebP without loss."""
    score: float | None
    """SSIMULACRA2 measured for this file; None where it was not."""


def encode_all(
    picture: Image.Image,
    focal: FocalBox,
    recipe: Recipe,
    *,
    exif: bytes,
    background: Background,
    fill: tuple[int, ...] = (),
    threads: int = 1,
) -> list[Variant]:
    """Cut every size from the picture and encode it in every format.

    Args:
        focal: where the subject is.
        fill: colour that crops show beyond the picture rather than cut the subject's core; empty where they stay
            inside.
        threads: formats encoded at once. On two cores two thirds of the time, for a twentieth more CPU time.

    Returns:
        the files in the order of the recipe.
    """
    formats = tuple("png" if kind == "jpeg" and picture.mode == "RGBA" else kind for kind in recipe.formats)
    held = focal.core if fill else None
    distinct: dict[tuple[PixelBox, int, int, float], Picture] = {}
    made: list[tuple[Size, Picture]] = []
    for size in recipe.sizes:
        width, height = output_size(*picture.size, size, held)
        box = (0, 0, *picture.size)
        if size.fit == "crop":
            box = crop_box(*picture.size, width, height, focal.box, core=focal.core, beyond=bool(fill))
        key = box, width, height, size.target
        if key not in distinct:
            image = shrink_onto(picture, width, height, box, fill)
            distinct[key] = Picture(image, size.target, whole=size.fit == "within")
        made.append((size, distinct[key]))
    pictures = list(distinct.values())
    with ThreadPoolExecutor(threads) as pool:
        each = pool.map(lambda kind: _files(kind, pictures, recipe, exif), formats)
        files = dict(zip(formats, each, strict=True))
    result = []
    for size, one in made:
        for kind in formats:
            file = files[kind][one]
            digest = hashlib.sha256(file.data).hexdigest()
            about = (size.name, kind, background, *one.image.size)
            result.append(Variant(*about, file.data, digest, file.quality, file.score))
    return result


def _files(kind: Format, pictures: list[Picture], recipe: Recipe, exif: bytes) -> dict[Picture, Encoded]:
    if kind != "png" and recipe.adaptive:
        files = search(kind, pictures, recipe, exif)
    else:
        quality = recipe.quality_of(kind)
        files = {one: Encoded(encode(one.image, kind, quality, recipe, exif), quality, None) for one in pictures}
    return {one: _without_loss(one, file, exif) for one, file in files.items()} if kind == "webp" else files


def _without_loss(one: Picture, lossy: Encoded, exif: bytes) -> Encoded:
    """The lossless WebP file if it is smaller. It is tried where that is likely, and where the lossy one misses its
    target, because lossy WebP has no 4:4:4 for small details in strong colours."""
    is_missed = lossy.miss(one.target) < -_MISSED
    if not has_few_colours(one.image) or not (is_missed or may_gain(one.image, len(lossy.data))):
        return lossy
    data = encode_lossless(one.image, exif)
    return Encoded(data, 0, None) if len(data) < len(lossy.data) else lossy
