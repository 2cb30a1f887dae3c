"""How one format of all pictures comes about: which encoding makes which other possible."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import replace
from math import log2

from imgpipe_orchestration.imaging.encode import encode
from imgpipe_orchestration.imaging.picture import Picture
from imgpipe_orchestration.imaging.quality import CLOSE, Encoded, Lossy, carried, close, exact, miss, reach, slope
from imgpipe_orchestration.imaging.recipe import Format, Recipe

_SEARCHED = 60_000
"""Pixels that the size to be searched has at least: fewer say little about the others."""
_FOLLOWS = 0.6
"""How much of JPEG's miss, in points, AVIF shares: measured over 12 photos at three sizes, correlation 0.8."""
_FAST_COSTS = 0.9
"""Steps of AVIF quality that speed 9 needs more than speed 8 for the same score."""
_COSTLY, _CLOSE_LARGE = 500_000, 1.8
"""Pixels from which a second try is expensive, and the points from the target that are then close enough."""
_SAME_SIZE = 0.2
"""Octaves of pixels under which two sizes show no trend."""


Work = Callable[[], Encoded]
Task = tuple["Chain", Picture, Work]


class Chain(ABC):
    """The encodings of one format. `done` fills up, by `id` of the picture."""

    def __init__(self, kind: Format, pictures: list[Picture], recipe: Recipe, exif: bytes) -> None:
        self.done: dict[int, Encoded] = {}
        self._pictures = pictures
        self._recipe = recipe
        self._start = recipe.quality_of(kind)
        self._format = kind
        self._exif = exif

    @abstractmethod
    def first(self) -> list[Task]:
        """What can be encoded at once."""

    @abstractmethod
    def after(self, one: Picture, file: Encoded) -> list[Task]:
        """Take an encoding in; what can be encoded now that it is there."""

    def _encode(self, one: Picture, quality: int) -> bytes:
        return encode(one.image, self._format, quality, self._recipe, self._exif)

    def _plain(self, one: Picture, quality: int) -> Task:
        return self, one, lambda: Encoded(self._encode(one, quality), quality, None)


class FixedChain(Chain):
    """Every picture at the recipe's fixed quality."""

    def first(self) -> list[Task]:
        return [self._plain(one, self._start) for one in self._pictures]

    def after(self, one: Picture, file: Encoded) -> list[Task]:
        self.done[id(one)] = file
        return []


class SearchingChain(Chain):
    """One picture is searched, the others start from what was found there.

    1. the searched picture, up to three tries
    2. every other one that is scored, one try from the quality found; AVIF waits for JPEG's try of the same picture,
       because what surprises one of them about a picture surprises the other, and JPEG's tries cost next to nothing
    3. a second try of those that missed; and those that are not scored, as soon as the trend over size is known
    """

    def __init__(
        self,
        kind: Lossy,
        pictures: list[Picture],
        searched: Picture,
        recipe: Recipe,
        exif: bytes,
        *,
        leader: SearchingChain | None = None,
    ) -> None:
        super().__init__(kind, pictures, recipe, exif)
        self._leader = leader
        self._follower: SearchingChain | None = None
        if leader:
            leader._follower = self
        self._waiting: list[Picture] = []
        self._kind: Lossy = kind
        self._searched = searched
        self._scored = [one for one in pictures if one.is_scored]
        self._largest = self._scored[0]
        self._first_tries: dict[int, Encoded] = {}

    def first(self) -> list[Task]:
        if self._kind == "avif":
            return [(self, self._searched, self._scout_and_search)]
        return [self._reach(self._searched, self._start, tries=3)]

    def _scout_and_search(self) -> Encoded:
        """AVIF's search, begun by a try at the fast speed, which takes a third of the time and is thrown away."""
        one = self._searched
        fast = replace(self._recipe, avif_speed=self._recipe.avif_speed_large)
        data = encode(one.image, self._format, self._start, fast, self._exif)
        start = exact(self._kind, Encoded(data, self._start, one.score(data)), one.target) - _FAST_COSTS
        _, _, search = self._reach(one, start, tries=2)
        return search()

    def after(self, one: Picture, file: Encoded) -> list[Task]:
        self.done[id(one)] = file
        if id(one) in self._first_tries or not one.is_scored:
            return []
        self._first_tries[id(one)] = file
        more: list[Task] = []
        if one is self._searched:
            self._waiting = [other for other in self._scored if other is not one]
            more += self._released()
        elif not close(file, one.target, _CLOSE_LARGE if one.pixels > _COSTLY else CLOSE):
            more.append(self._reach(one, file.quality, tries=1, before=file))
        if one is self._largest:
            more += [self._plain(other, self._carried(other)) for other in self._pictures if not other.is_scored]
        if self._follower:
            more += self._follower._released()
        return more

    def _released(self) -> list[Task]:
        """First tries that need not wait any longer."""
        ready = [one for one in self._waiting if not self._leader or id(one) in self._leader._first_tries]
        self._waiting = [one for one in self._waiting if one not in ready]
        return [self._reach(one, self._expected(one), tries=1) for one in ready]

    def _expected(self, one: Picture) -> float:
        """The quality that should suit a picture, from the searched one and from the leader's miss."""
        start = exact(self._kind, self._first_tries[id(self._searched)], one.target)
        if self._leader is None:
            return start
        return start - _FOLLOWS * miss(self._leader._first_tries[id(one)], one.target) / slope(self._kind, start)

    def _carried(self, one: Picture) -> int:
        """The quality of a picture that is not scored, from the searched one and the largest scored one."""
        span = log2(self._largest.pixels / self._searched.pixels)
        position = log2(one.pixels / self._searched.pixels) / span if span > _SAME_SIZE else 1.0
        first, last = self._first_tries[id(self._searched)], self._first_tries[id(self._largest)]
        return carried(self._kind, first, last, position, one.target)

    def _reach(self, one: Picture, start: float, *, tries: int, before: Encoded | None = None) -> Task:
        return (
            self,
            one,
            lambda: reach(
                one.target,
                self._kind,
                start,
                lambda quality: self._encode(one, quality),
                one.score,
                tries=tries,
                before=before,
            ),
        )


def searched_of(pictures: list[Picture]) -> Picture | None:
    """The picture to search, of pictures sorted from the largest: the smallest that says enough about the others."""
    scored = [one for one in pictures if one.is_scored]
    telling = [one for one in scored if one.whole and one.pixels >= _SEARCHED]
    candidates = telling or scored
    return candidates[-1] if candidates else None
