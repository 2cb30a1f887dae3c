"""In which order the pictures of one format are encoded, and what earlier encodings tell about later ones."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property, partial
from math import log2

from imgpipe_orchestration.imaging.encoding.encode import encode, encode_draft, usual_nanoseconds
from imgpipe_orchestration.imaging.encoding.levels import Lossy, level_of
from imgpipe_orchestration.imaging.encoding.picture import TRIED, Picture
from imgpipe_orchestration.imaging.encoding.quality import (
    CLOSE,
    Encoded,
    bounded,
    carried,
    close,
    exact,
    miss,
    reach,
    slope,
    usual,
)
from imgpipe_orchestration.imaging.encoding.ways import WAYS
from imgpipe_orchestration.imaging.formats import Format
from imgpipe_orchestration.imaging.recipe import Recipe

_SEARCHED = 60_000
"""Fewest pixels of the picture whose quality is searched: smaller ones say little about the others."""
_FAR, _GAIN = 8.0, 10.0
"""Points that a first try lacks, from which it is repeated in 4:4:4, and points that this must gain to be kept: red
letters gain 14 to 30, photographs up to 8."""
_NEARER = 3.0
"""Weight of a leader relative to the one before it: WebP predicts AVIF better than JPEG does."""
_EXCERPTS = 4
"""Most tries of an excerpt. One takes 5 % of the time of its picture as JPEG, a sixth as WebP or AVIF."""
_JUMPY = 1.0
"""Points that the nearest try of an excerpt as JPEG may miss by; beyond that its picture is tried itself."""
_SAME_SIZE = 0.2
"""Octaves below which two sizes show no trend."""


Work = Callable[[], Encoded]
Task = tuple["Chain", Picture, Work]


class Chain(ABC):
    """The encodings of one format. `done` collects the final file of each picture, by the picture's `id`."""

    def __init__(self, kind: Format, pictures: list[Picture], recipe: Recipe, exif: bytes) -> None:
        self.done: dict[int, Encoded] = {}
        self._waiting = list(pictures)
        self._recipe = recipe
        self._start = recipe.quality_of(kind)
        self._format = kind
        self._exif = exif

    def remaining(self, one: Picture, chains: Sequence[Chain]) -> float:
        """Nanoseconds of encoding that a task of this chain for a picture and all that waits for it take, as a guess.

        Args:
            chains: all of them, leaders first.
        """
        later = chains[chains.index(self) :]
        held_back = [(chain, each) for chain in later for each in chain._waiting if each is one or self._leads(one)]
        return sum(
            usual_nanoseconds(chain._format, each.pixels, chain._recipe) for chain, each in [(self, one), *held_back]
        )

    @abstractmethod
    def _leads(self, one: Picture) -> bool:
        """Whether all that is not yet begun waits for this picture's next task, in this chain and in its followers."""

    @abstractmethod
    def after(self, one: Picture, file: Encoded) -> list[Task]:
        """Take in a finished encoding; returns the tasks that it makes necessary."""

    @abstractmethod
    def released(self) -> list[Task]:
        """The tasks that no longer wait for another encoding of this chain or of its leaders.

        The caller polls it, because leaders that notified their followers would form reference cycles, and keep all
        pictures (a hundred megabytes) until the garbage collector runs.
        """

    def _encode(self, one: Picture, quality: int) -> bytes:
        return encode(one.image, self._format, quality, self._recipe_of(one), self._exif)

    def _recipe_of(self, one: Picture) -> Recipe:
        return self._recipe

    def _plain(self, one: Picture, quality: int, score: float | None = None) -> Task:
        return self, one, lambda: Encoded(self._encode(one, quality), quality, score)


class FixedChain(Chain):
    """Every picture at the recipe's fixed quality."""

    def released(self) -> list[Task]:
        waiting, self._waiting = self._waiting, []
        return [self._plain(one, self._start) for one in waiting]

    def _leads(self, one: Picture) -> bool:
        return False

    def after(self, one: Picture, file: Encoded) -> list[Task]:
        self.done[id(one)] = file
        return []


class SearchingChain(Chain):
    """One picture's quality is searched, and the others start from what was found there.

    1. the searched picture: a few tries, beginning where the leaders' searches ended
    2. the largest one, likewise: together they show how the quality depends on the size
    3. all others, at the quality that this trend predicts; those that miss are tried again

    A format also follows its leaders, the formats before it, whose tries take less time: it has a part of each of their
    surprises. AVIF also follows their bytes: led by JPEG and WebP it comes within 0.8 points (root mean square, crops
    of 209 photographs).

    Large photographs are tried by their excerpts, and encoded once. To score them would take a tenth of a rendering,
    and further tries half as much. Large drawings are tried themselves, after the others.
    """

    def __init__(
        self,
        kind: Lossy,
        pictures: list[Picture],
        searched: Picture,
        recipe: Recipe,
        exif: bytes,
        *,
        leaders: Sequence[SearchingChain] = (),
    ) -> None:
        super().__init__(kind, pictures, recipe, exif)
        self._kind: Lossy = kind
        self._all_colours = replace(recipe, avif_subsampling="4:4:4", jpeg_subsampling="4:4:4")
        self._ways = WAYS[kind]
        self._leaders = leaders
        self._searched = searched
        self._whole = [one for one in pictures if one.whole]
        self._first_tries: dict[int, Encoded] = {}
        self._colourful: set[int] = set()

    @cached_property
    def _largest(self) -> Picture:
        """The largest whole picture that takes little time to try: a photograph of any size, or a smaller drawing."""
        return next((one for one in self._whole if one.tried.pixels <= TRIED), self._searched)

    def _search(self) -> Encoded:
        """Search the searched picture's quality.

        If the search ends below the target, 4:2:0 was too little, as for red letters on blue. The whole chain then goes
        on in 4:4:4, except for WebP, which cannot.
        """
        found = self._search_once()
        if self._kind != "webp" and miss(found, self._searched.target) < -CLOSE:
            self._recipe = self._all_colours
            found = self._search_once()
        return found

    def _search_once(self) -> Encoded:
        _, _, search = self._reach(self._searched, self._beginning(), tries=self._ways.tries)
        return search()

    def _beginning(self) -> float:
        """The level at which the search begins: by the leaders' results, else by the recipe."""
        one, levels = self._searched, []
        for leader in self._leaders_to_begin():
            by_level, by_octave, at_none = self._ways.begins[leader._kind]
            levels.append(by_level * leader._exact(one, one.target) + by_octave * leader._density(one) + at_none)
        return _by_nearness(levels) if levels else level_of(self._kind, self._start)

    def _leaders_to_begin(self) -> list[SearchingChain]:
        return [leader for leader in self._leaders if leader._kind in self._ways.begins]

    def _leads(self, one: Picture) -> bool:
        return one not in self and (one is self._searched or one is self._largest)

    def after(self, one: Picture, file: Encoded) -> list[Task]:
        self.done[id(one)] = file
        if one in self:
            return []
        self._first_tries[id(one)] = file
        if one.tried is not one:
            return [self._by_excerpt(one, file)]
        if not self._is_settled(one, file):
            return [self._reach(one, file, tries=self._ways.tries, is_last=True)]
        return [self._plain(one, file.quality, file.score)] if self._kind == "jpeg" else []  # its tries are drafts

    def _by_excerpt(self, one: Picture, file: Encoded) -> Task:
        """The task that makes a large photograph, after the tries of its excerpt."""
        if self._kind != "jpeg":
            quality = bounded(self._kind, self._exact(one, one.target))
        elif close(file, one.target, _JUMPY):
            quality = file.quality
        else:
            return self._reach(one, level_of(self._kind, file.quality), tries=self._ways.tries, is_last=True)
        return self._plain(one, quality, file.score if quality == file.quality else None)

    def _is_settled(self, one: Picture, first_try: Encoded) -> bool:
        """Whether a picture's first try is good enough; those that the others follow have had all their tries."""
        return one is self._searched or one is self._largest or close(first_try, one.target)

    def released(self) -> list[Task]:
        ready = [one for one in self._waiting if self._is_ready(one)]
        self._waiting = [one for one in self._waiting if one not in ready]
        return [self._first_try(one) for one in ready]

    def _is_ready(self, one: Picture) -> bool:
        if one is self._searched:
            return all(one in leader for leader in self._leaders_to_begin())
        before = self._searched if one is self._largest else self._largest
        return before in self and all(one in leader for leader in self._leaders)

    def _first_try(self, one: Picture) -> Task:
        if one is self._searched:
            return self, one, self._search
        level = self._trend(one)
        level += self._lacks(one) / slope(self._kind, level)
        if one.tried is not one:
            return self._reach(one, level, tries=_EXCERPTS)
        return self._reach(one, level, tries=self._ways.tries if one is self._largest else 1)

    def _lacks(self, one: Picture) -> float:
        """The points that a picture would lack at the level of the trend, predicted from its leaders' first tries."""
        leaders = [leader for leader in self._leaders if one in leader]
        if not leaders:
            return 0.0
        surprise = _by_nearness([leader._surprise(one) for leader in leaders])
        return self._ways.texture * leaders[-1]._texture(one) - self._ways.followed * surprise

    def _texture(self, one: Picture) -> float:
        """Octaves of bytes per pixel that a picture takes beyond what its size predicts."""
        return self._density(one) - self._expected(one, self._density)

    def _density(self, one: Picture) -> float:
        """Bytes per pixel of the first try, as a logarithm to base 2."""
        return log2(len(self._first_tries[id(one)].data) / one.tried.pixels)

    def _surprise(self, one: Picture) -> float:
        """The points by which a picture's first try scored better than its size predicts."""
        expected = self._trend(one)
        return (expected - self._exact(one, one.target)) * slope(self._kind, expected)

    def _trend(self, one: Picture) -> float:
        """The level that a picture of this size is expected to need, from the searched picture and the largest one."""
        level = self._expected(one, lambda each: self._exact(each, one.target))
        smaller = self._searched if one is self._largest else self._largest
        octaves = _octaves(smaller, one)
        if octaves > 0:
            level -= self._ways.settles * octaves * (self._exact(smaller, one.target) - usual(self._kind))
        if one is self._largest:
            level += self._ways.drift * octaves / slope(self._kind, level)
        return level

    def _expected(self, one: Picture, value: Callable[[Picture], float]) -> float:
        """The value that the searched picture and the largest one predict for another size. For the largest one itself
        it is the searched picture's."""
        searched = value(self._searched)
        if one is self._searched or one is self._largest or self._largest is self._searched:
            return searched
        octaves, span = _octaves(self._searched, one), _octaves(self._searched, self._largest)
        return carried(searched, value(self._largest), octaves / span if span > _SAME_SIZE else 1.0)

    def _exact(self, one: Picture, target: float) -> float:
        """The level at which a picture would have hit a target, estimated from its first try."""
        return exact(self._kind, self._first_tries[id(one)], target)

    def __contains__(self, one: Picture) -> bool:
        """Whether a picture's first scored try is done."""
        return id(one) in self._first_tries

    def _reach(self, one: Picture, start: float | Encoded, *, tries: int, is_last: bool = False) -> Task:
        """A task that tries qualities from a level or from an earlier try on, and scores them.

        Args:
            is_last: try the picture itself even if it has an excerpt; it gets no other task, whatever its file scores.
        """
        is_first = not isinstance(start, Encoded)
        tried = one if is_last else one.tried
        points = CLOSE if tried is one else self._ways.excerpted

        def work() -> Encoded:
            further = partial(reach, one.target, self._kind, encode=draft, score=tried.score, points=points)
            if not is_first or one is self._searched:
                found = further(start, tries=tries)
            else:
                found = further(start, tries=1)
                if miss(found, one.target) < -_FAR:
                    found = self._in_all_colours(one, found, draft, tried.score)
                found = further(found, tries=tries - 1)
            if is_last and self._kind == "jpeg":
                return replace(found, data=self._encode(one, found.quality))
            return found

        def draft(quality: int) -> bytes:
            recipe = self._recipe_of(one)
            if one.pixels > recipe.large_pixels:  # an excerpt is encoded with the effort of its picture
                recipe = replace(recipe, large_pixels=0)
            return encode_draft(tried.image, self._format, quality, recipe, self._exif)

        return self, one, work

    def _in_all_colours(
        self, one: Picture, file: Encoded, draft: Callable[[int], bytes], score: Callable[[bytes], float]
    ) -> Encoded:
        """The same try in 4:4:4 if that helps much; the picture then keeps 4:4:4."""
        if self._kind == "webp" or self._recipe_of(one) is self._all_colours:
            return file
        self._colourful.add(id(one))
        data = draft(file.quality)
        again = Encoded(data, file.quality, score(data))
        if miss(again, one.target) - miss(file, one.target) > _GAIN:
            return again
        self._colourful.discard(id(one))
        return file

    def _recipe_of(self, one: Picture) -> Recipe:
        """In 4:4:4 if the picture (or `_largest`, for one above that) needs it in this format or in a leader."""
        followed = self._largest if one.pixels > self._largest.pixels else one
        colourful = any({id(one), id(followed)} & chain._colourful for chain in (self, *self._leaders))
        return self._all_colours if colourful else self._recipe


def _octaves(smaller: Picture, larger: Picture) -> float:
    """How many times more pixels the larger one's scale gives to the same content, as a logarithm to base 2."""
    return 2 * log2(larger.scale / smaller.scale)


def _by_nearness(told: list[float]) -> float:
    """The weighted mean of the leaders' values, which are in the leaders' order."""
    weights = [_NEARER**place for place in range(len(told))]
    return sum(weight * value for weight, value in zip(weights, told, strict=True)) / sum(weights)


def searched_of(pictures: list[Picture]) -> Picture:
    """The picture whose quality is to be searched: the smallest that says enough about the others.

    Args:
        pictures: sorted from the largest.
    """
    telling = [one for one in pictures if one.whole and one.pixels >= _SEARCHED]
    return (telling or pictures)[-1]
