"""One picture to every size in every format."""

import hashlib
from dataclasses import dataclass
from typing import Literal

from PIL import Image

from imgpipe_orchestration.imaging.encoding.encode import encode, encode_lossless
from imgpipe_orchestration.imaging.encoding.picture import Picture, may_gain
from imgpipe_orchestration.imaging.encoding.search import Encoded, search
from imgpipe_orchestration.imaging.formats import MIME_OF, Format
from imgpipe_orchestration.imaging.plan import plan
from imgpipe_orchestration.imaging.recipe import Recipe
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

    @property
    def mime(self) -> str:
        return MIME_OF[self.format]


def encode_all(
    picture: Image.Image,
    focal: FocalBox,
    recipe: Recipe,
    *,
    exif: bytes,
    background: Background,
    ground: tuple[int, ...] = (),
) -> list[Variant]:
    """Cut every size and encode it in every format.

    Args:
        focal: where the subject is.
        ground: colour that crops show beyond the picture rather than cut the subject's core; empty where they stay
            inside.

    Returns:
        the files in the order of the recipe.
    """
    formats = tuple("png" if kind == "jpeg" and picture.mode == "RGBA" else kind for kind in recipe.formats)
    images: dict[str | None, Image.Image] = {None: picture}
    distinct: dict[tuple[int, float], Picture] = {}
    made = {}
    for cut in plan(*picture.size, recipe, focal.core if ground else None):
        source = images[cut.source]
        is_same = source.size == (cut.width, cut.height) and not cut.beyond
        image = source if is_same else shrink_onto(source, cut.width, cut.height, cut.box(focal), ground)
        images[cut.size.name] = image
        one = Picture(image, cut.size.target, whole=cut.size.fit == "within")
        made[cut.size.name] = cut, distinct.setdefault((id(image), cut.size.target), one)
    files = {kind: _files(kind, list(distinct.values()), recipe, exif) for kind in formats}
    result = []
    for cut, one in (made[size.name] for size in recipe.sizes):
        for kind in formats:
            file = files[kind][one]
            digest = hashlib.sha256(file.data).hexdigest()
            about = (cut.size.name, kind, background, cut.width, cut.height)
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
    if not one.has_few_colours or not (is_missed or may_gain(one.image, len(lossy.data))):
        return lossy
    data = encode_lossless(one.image, exif)
    return Encoded(data, 0, None) if len(data) < len(lossy.data) else lossy
