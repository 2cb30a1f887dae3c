"""One picture to every size in every format."""

from __future__ import annotations

from dataclasses import dataclass

from PIL import Image

from imgpipe_orchestration.imaging.encoding.drawing import may_gain
from imgpipe_orchestration.imaging.encoding.encode import encode, encode_lossless
from imgpipe_orchestration.imaging.encoding.picture import Picture
from imgpipe_orchestration.imaging.encoding.search import Encoded, search
from imgpipe_orchestration.imaging.formats import Format
from imgpipe_orchestration.imaging.plan import Cut, plan
from imgpipe_orchestration.imaging.recipe import Recipe
from imgpipe_orchestration.imaging.resize import shrink_onto
from imgpipe_orchestration.imaging.subject.focus import FocalBox

SUPPORT: tuple[Format, ...] = ("jpeg", "png", "webp", "avif")
"""From the best supported format to the least."""
_MISSED = 2.0
"""Points by which a lossy file may miss its target before a lossless one is tried in its place."""


@dataclass(frozen=True, slots=True)
class SizeFile:
    """One encoded size."""

    size: str
    format: Format
    width: int
    height: int
    data: bytes
    quality: int
    """In the encoder's own scale; 0 for a lossless file."""
    score: float | None


def encode_all(
    picture: Image.Image, focal: FocalBox, recipe: Recipe, *, exif: bytes, ground: tuple[int, ...] = ()
) -> list[SizeFile]:
    """Cut every size and encode it in every format.

    Args:
        focal: where the subject is.
        ground: colour that crops show beyond the picture rather than cut the subject's core; empty where they stay
            inside.

    Returns:
        the files in the order of the recipe.
    """
    formats = tuple("png" if kind == "jpeg" and picture.mode == "RGBA" else kind for kind in recipe.formats)
    cuts = plan(*picture.size, recipe, focal.core if ground else None)
    pictures = _pictures(picture, cuts, focal, ground)
    distinct = list({id(one): one for one in pictures.values()}.values())
    files = {kind: _files(kind, distinct, recipe, exif) for kind in formats}
    by_name = {cut.size.name: cut for cut in cuts}
    result = []
    for size in recipe.sizes:
        cut, one = by_name[size.name], pictures[size.name]
        for kind in formats:
            file = files[kind][id(one)]
            result.append(SizeFile(size.name, kind, cut.width, cut.height, file.data, file.quality, file.score))
    return result


def _pictures(
    picture: Image.Image, cuts: tuple[Cut, ...], focal: FocalBox, ground: tuple[int, ...]
) -> dict[str, Picture]:
    """The picture of each size, by the size's name. Equal ones share one `Picture`."""
    images: dict[str | None, Image.Image] = {None: picture}
    distinct: dict[tuple[int, float], Picture] = {}
    named = {}
    for cut in cuts:
        source = images[cut.source]
        is_same = source.size == (cut.width, cut.height) and not cut.beyond
        image = source if is_same else shrink_onto(source, cut.width, cut.height, cut.box(focal), ground)
        images[cut.size.name] = image
        made = Picture(image, whole=cut.size.fit == "within", target=cut.size.target)
        named[cut.size.name] = distinct.setdefault((id(image), cut.size.target), made)
    return named


def _files(kind: Format, pictures: list[Picture], recipe: Recipe, exif: bytes) -> dict[int, Encoded]:
    """The file of each picture, by its `id`."""
    if kind != "png" and recipe.adaptive:
        files = search(kind, pictures, recipe, exif)
    else:
        quality = recipe.quality_of(kind)
        files = {id(one): Encoded(encode(one.image, kind, quality, recipe, exif), quality, None) for one in pictures}
    if kind == "webp":
        for one in pictures:
            files[id(one)] = _without_loss(one, files[id(one)], exif)
    return files


def _without_loss(one: Picture, lossy: Encoded, exif: bytes) -> Encoded:
    """The lossless WebP file if it is smaller. It is tried where that is likely, and where the lossy one misses its
    target, because lossy WebP has no 4:4:4 for small details in strong colours."""
    is_missed = lossy.miss(one.target) < -_MISSED
    if not one.has_few_colours or not (is_missed or may_gain(one.image, len(lossy.data))):
        return lossy
    data = encode_lossless(one.image, exif)
    return Encoded(data, 0, None) if len(data) < len(lossy.data) else lossy
