"""The quality at which each size of a picture reaches its target score, in one format.

A fixed quality scores 67 on one photo and 82 on the next: noise and fine texture need more, soft pictures less. So a
size is encoded, decoded and scored until it is close to its target: a small one first, then the largest, and the others
from where the trend between those says.

For a large photograph the search runs on an excerpt, and the picture itself is encoded once: scoring it would take a
tenth of the rendering, and each further try half of that.
"""

import math
from dataclasses import dataclass, replace

import numpy as np

from imgpipe_orchestration.imaging.encoding.encode import encode
from imgpipe_orchestration.imaging.encoding.picture import Picture
from imgpipe_orchestration.imaging.formats import Format
from imgpipe_orchestration.imaging.recipe import Recipe

_CLOSE = 1.85
"""Points from the target up to which a file is good enough."""
_LEAST_FIRST = 60_000
"""Fewest pixels of the picture that is tried first: smaller ones say little about the others."""
_TRIES = 4
"""Most tries of one size."""
_BOUNDS: dict[Format, tuple[int, int]] = {"avif": (20, 92), "webp": (15, 97), "jpeg": (20, 96)}
"""Beyond these a file grows fast and its score hardly does, because no encoder can preserve noise."""
_FOR_A_POINT: dict[Format, float] = {"avif": 2.0, "webp": 1.4, "jpeg": 1.75}
"""Steps of quality that gain a point of score, at the usual qualities (medians of 80 photographs)."""
_KINK, _BELOW_IT = 75, 2.5
"""The quality below which libwebp's steps are worth less, and how many times less (`QualityToCompression`)."""
_FAR, _GAIN = 8.0, 10.0
"""Points that a first try lacks, from which it is repeated in 4:4:4, and points that this must gain to be kept: red
letters gain 14 to 30, photographs up to 8."""


@dataclass(frozen=True, slots=True)
class Encoded:
    """A file, its quality (0: lossless) and its measured score (None: not measured)."""

    data: bytes
    quality: int
    score: float | None

    def miss(self, target: float) -> float:
        """Points above the target, negative below it; 0 for a file without a score."""
        return 0.0 if self.score is None else self.score - target


def search(kind: Format, pictures: list[Picture], recipe: Recipe, exif: bytes) -> dict[Picture, Encoded]:
    """The file of each picture."""
    files: dict[Picture, Encoded] = {}
    known: dict[float, float] = {}
    for one in _in_order(pictures):
        size = math.log2(one.pixels)
        expected = np.interp(size, sorted(known), [known[each] for each in sorted(known)]) if known else None
        start = _bounded(kind, recipe.quality_of(kind) if expected is None else float(expected))
        # An excerpt is encoded with the effort of its picture.
        effort = replace(recipe, large_pixels=0) if one.pixels > recipe.large_pixels else recipe
        found, effort = _tried(kind, one.excerpt or one, start, effort, exif)
        recipe = replace(effort, large_pixels=recipe.large_pixels)
        known[size] = _corrected(kind, found, one.target)
        if one.excerpt:
            best = _bounded(kind, known[size])
            found = Encoded(encode(one.image, kind, best, effort, exif), best, None)
        files[one] = found
    return files


def _in_order(pictures: list[Picture]) -> list[Picture]:
    """First a small picture, which costs little, then the largest: the qualities of the others lie between theirs."""
    ordered = sorted(pictures, key=lambda one: one.pixels)
    first = next((one for one in ordered if one.whole and one.pixels >= _LEAST_FIRST), ordered[-1])
    return sorted(ordered, key=lambda one: (one is not first, one is not ordered[-1]))


def _tried(kind: Format, one: Picture, quality: int, recipe: Recipe, exif: bytes) -> tuple[Encoded, Recipe]:
    """The best of the tries that begin at a quality. Where 4:2:0 shows too little, as for red letters on blue, the
    recipe is from then on one for 4:4:4, which WebP does not have."""

    def encoded(recipe: Recipe) -> Encoded:
        data = encode(one.image, kind, quality, recipe, exif)
        return Encoded(data, quality, one.score(data))

    seen: dict[int, Encoded] = {}
    while len(seen) < _TRIES and quality not in seen:
        found = encoded(recipe)
        if not seen and kind != "webp" and found.miss(one.target) < -_FAR:
            coloured = replace(recipe, avif_subsampling="4:4:4", jpeg_subsampling="4:4:4")
            again = encoded(coloured) if coloured != recipe else found
            if again.miss(one.target) - found.miss(one.target) > _GAIN:
                found, recipe = again, coloured
        seen[quality] = found
        if abs(found.miss(one.target)) <= _CLOSE:
            return found, recipe
        quality = _bounded(kind, _next(kind, list(seen.values()), one.target))
    return min(seen.values(), key=lambda each: abs(each.miss(one.target))), recipe


def _next(kind: Format, seen: list[Encoded], target: float) -> float:
    """The quality to try next: on the line between two tries on both sides of the target, else by the usual steps."""
    seen = sorted(seen, key=lambda one: abs(one.miss(target)))
    nearest = seen[0]
    beyond = next((one for one in seen if (one.miss(target) < 0) != (nearest.miss(target) < 0)), None)
    if beyond is None:
        return _corrected(kind, nearest, target, len(seen))
    share = nearest.miss(target) / (nearest.miss(target) - beyond.miss(target))
    step = share * (beyond.quality - nearest.quality)
    return nearest.quality + (step if abs(step) >= 1 else (1 if step > 0 else -1))


def _corrected(kind: Format, one: Encoded, target: float, times: int = 1) -> float:
    """The quality at which a file would have hit its target, by so many times the usual steps."""
    points = _FOR_A_POINT[kind] * (_BELOW_IT if kind == "webp" and one.quality < _KINK else 1)
    return one.quality - one.miss(target) * points * times


def _bounded(kind: Format, quality: float) -> int:
    """The nearest quality that is worth its bytes."""
    lowest, highest = _BOUNDS[kind]
    return min(max(round(quality), lowest), highest)
