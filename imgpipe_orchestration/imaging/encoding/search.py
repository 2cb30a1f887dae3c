"""The qualities at which the sizes of one picture reach their target score, in one format.

1. the smallest size that says enough is tried from the recipe's quality on: this costs little
2. the largest size of the whole picture is tried from where that ended
3. together they show how the quality depends on the size: all others begin there, and are tried again if they miss

A large photograph is tried by its excerpt, and encoded once: to score it would take a tenth of a rendering, and further
tries half as much.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from math import log2

from imgpipe_orchestration.imaging.encoding.encode import encode, encode_draft
from imgpipe_orchestration.imaging.encoding.levels import Lossy, level_of
from imgpipe_orchestration.imaging.encoding.picture import Picture
from imgpipe_orchestration.imaging.encoding.quality import CLOSE, Encoded, bounded, exact, miss, reach
from imgpipe_orchestration.imaging.recipe import Recipe

_SEARCHED = 60_000
"""Fewest pixels of the size that is tried first: smaller ones say little about the others."""
_TRIES = 4
"""Most tries of one size."""
_FAR, _GAIN = 8.0, 10.0
"""Points that a first try lacks, from which it is repeated in 4:4:4, and points that this must gain to be kept: red
letters gain 14 to 30, photographs up to 8."""
_SAME_SIZE = 0.2
"""Octaves below which two sizes show no trend."""
_BEYOND = 1.5
"""How far a trend is continued, in distances between the two sizes that show it."""


def search(kind: Lossy, pictures: list[Picture], recipe: Recipe, exif: bytes) -> dict[int, Encoded]:
    """The file of each picture, by the picture's `id`.

    Args:
        pictures: sorted from the largest.
    """
    return _Search(kind, recipe, exif).run(pictures)


class _Search:
    def __init__(self, kind: Lossy, recipe: Recipe, exif: bytes) -> None:
        self._kind = kind
        self._recipe = recipe
        self._exif = exif
        self._levels: dict[int, float] = {}
        """The level at which each picture would hit its target, by its `id`."""

    def run(self, pictures: list[Picture]) -> dict[int, Encoded]:
        small = ([one for one in pictures if one.whole and one.pixels >= _SEARCHED] or pictures)[-1]
        large = next((one for one in pictures if one.whole), small)
        done = {id(small): self._first(small)}
        for one in [large, *pictures]:
            if id(one) not in done:
                done[id(one)] = self._made(one, self._expected(one, small, large))
        return done

    def _first(self, small: Picture) -> Encoded:
        """The small one's file. If it stays below the target, 4:2:0 was too little, as for red letters on blue: all
        sizes then get 4:4:4, which WebP does not have."""
        start = level_of(self._kind, self._recipe.quality_of(self._kind))
        file = self._made(small, start)
        if self._kind != "webp" and miss(file, small.target) < -CLOSE:
            self._recipe = _in_all_colours(self._recipe)
            file = self._made(small, start)
        return file

    def _expected(self, one: Picture, small: Picture, large: Picture) -> float:
        """The level that the two tell for another size."""
        if id(large) not in self._levels:
            return self._levels[id(small)]
        span, octaves = _octaves(small, large), _octaves(small, one)
        position = min(max(octaves / span, 0.0), _BEYOND) if span > _SAME_SIZE else 1.0
        return self._levels[id(small)] + position * (self._levels[id(large)] - self._levels[id(small)])

    def _made(self, one: Picture, level: float) -> Encoded:
        """A picture's file, from tries that begin at a level."""
        tried, recipe = one.excerpt or one, self._recipe
        if one.pixels > recipe.large_pixels:  # an excerpt is encoded with the effort of its picture
            recipe = replace(recipe, large_pixels=0)
        reached = partial(reach, one.target, self._kind, score=tried.score)
        found = reached(level, self._draft(tried, recipe), tries=1)
        if self._kind != "webp" and miss(found, one.target) < -_FAR:
            coloured = _in_all_colours(recipe)
            again = reached(level, self._draft(tried, coloured), tries=1)
            if miss(again, one.target) - miss(found, one.target) > _GAIN:
                found, recipe = again, coloured
        found = reached(found, self._draft(tried, recipe), tries=_TRIES - 1)
        self._levels[id(one)] = exact(self._kind, found, one.target)
        if tried is not one:
            quality = bounded(self._kind, self._levels[id(one)])
            return Encoded(encode(one.image, self._kind, quality, recipe, self._exif), quality, None)
        if self._kind == "jpeg":  # its tries are drafts
            return replace(found, data=encode(one.image, self._kind, found.quality, recipe, self._exif))
        return found

    def _draft(self, tried: Picture, recipe: Recipe) -> partial[bytes]:
        return partial(encode_draft, tried.image, self._kind, recipe=recipe, exif=self._exif)


def _in_all_colours(recipe: Recipe) -> Recipe:
    return replace(recipe, avif_subsampling="4:4:4", jpeg_subsampling="4:4:4")


def _octaves(smaller: Picture, larger: Picture) -> float:
    """How many times more pixels the larger one's scale gives to the same content, as a logarithm to base 2."""
    return 2 * log2(larger.scale / smaller.scale)
