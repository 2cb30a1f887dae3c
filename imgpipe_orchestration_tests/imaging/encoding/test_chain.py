"""What the tries of one format tell the next, with encoders whose answers are known beforehand."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import cast

import pytest

from imgpipe_orchestration.imaging.encoding import chain as chain_module
from imgpipe_orchestration.imaging.encoding import encode_all
from imgpipe_orchestration.imaging.encoding.chain import SearchingChain
from imgpipe_orchestration.imaging.encoding.levels import Lossy, level_of
from imgpipe_orchestration.imaging.encoding.quality import CLOSE, slope
from imgpipe_orchestration.imaging.formats import Format
from imgpipe_orchestration.imaging.recipe import MEDIA, Recipe

_USUAL = {"jpeg": 78.0, "webp": 82.0, "avif": 26.0}
"""Levels at which a picture scores 75."""


@dataclass
class _Pictured:
    """A picture that stands for its own image."""

    pixels: int
    needs: dict[str, float] = field(default_factory=dict)
    """Points that it lacks at the usual level, by format."""
    density: float = 1.0
    """Of its WebP: bytes for each hundred pixels."""
    whole: bool = True
    target: float = 75.0
    excerpt: _Pictured | None = None
    is_drawn: bool = False
    asked: dict[str, list[int]] = field(default_factory=dict)

    @property
    def image(self) -> _Pictured:
        return self

    @property
    def scale(self) -> float:
        return (self.pixels / 6_000_000) ** 0.5

    @property
    def tried(self) -> _Pictured:
        return self.excerpt if self.excerpt and not self.is_drawn else self

    def score(self, data: bytes) -> float:
        assert len(data) == int(self.pixels * self.density / 100), "a file of another picture"
        kind, quality, _ = data.decode().split(" ", 2)
        beyond = level_of(cast(Lossy, kind), int(quality)) - _USUAL[kind]
        return 75 + beyond * slope(cast(Lossy, kind), _USUAL[kind]) - self.needs.get(kind, 0.0)


def _large(**needs: float) -> _Pictured:
    """A picture with an excerpt, which is as hard to encode."""
    return _Pictured(3_840_000, needs=needs, excerpt=_Pictured(590_000, needs=needs))


@pytest.fixture
def encoded() -> list[tuple[str, int]]:
    """Formats and pixels of what was encoded, in that order."""
    return []


@pytest.fixture
def made(
    monkeypatch: pytest.MonkeyPatch, encoded: list[tuple[str, int]]
) -> Callable[..., dict[Format, SearchingChain]]:
    def encode(one: _Pictured, kind: str, quality: int, _recipe: Recipe, _exif: bytes = b"") -> bytes:
        encoded.append((kind, one.pixels))
        one.asked.setdefault(kind, []).append(quality)
        return f"{kind} {quality} ".encode().ljust(int(one.pixels * one.density / 100))

    monkeypatch.setattr(chain_module, "encode", encode)
    monkeypatch.setattr(chain_module, "encode_draft", encode)

    def run(*pictures: _Pictured, recipe: Recipe = MEDIA) -> dict[Format, SearchingChain]:
        chains = encode_all._chains(("jpeg", "webp", "avif"), list(pictures), recipe, b"")
        with ThreadPoolExecutor(1) as pool:
            encode_all._run(list(chains.values()), pool, threads=1)
        return chains

    return run


def _first_level(one: _Pictured, kind: Lossy) -> float:
    return level_of(kind, one.asked[kind][0])


def test_avif_follows_what_surprised_jpeg_and_webp(made: Callable[..., dict[Format, SearchingChain]]) -> None:
    """Once they know that a size is harder than its trend, its first AVIF begins higher; WebP's word weighs more."""
    levels = {}
    for harder in ("", "jpeg", "webp", "jpeg webp"):
        detail = _Pictured(960_000, needs=dict.fromkeys(harder.split(), 9.0))
        made(detail, _Pictured(150_000))
        levels[harder] = _first_level(detail, "avif")
    assert levels[""] < levels["jpeg"] < levels["webp"] < levels["jpeg webp"]


def test_avif_begins_higher_where_webp_takes_more_bytes_than_the_size_lets_expect(
    made: Callable[..., dict[Format, SearchingChain]],
) -> None:
    levels = []
    for density in (0.5, 1.0, 2.0):
        detail = _Pictured(960_000, density=density)
        made(detail, _Pictured(150_000))
        levels.append(_first_level(detail, "avif"))
    assert levels[0] + 1 < levels[1] < levels[2] - 1


def test_what_gets_denser_as_its_sizes_do_is_no_surprise(
    made: Callable[..., dict[Format, SearchingChain]],
) -> None:
    """Half way between two sizes, half way between their bytes a pixel is what was to be expected."""
    densities = []
    for between in (1.0, 1.42, 2.0):
        crop = _Pictured(380_000, density=between, whole=False)
        made(_Pictured(960_000, density=2.0, needs={"avif": 2.0}), crop, _Pictured(150_000))
        densities.append(_first_level(crop, "avif"))
    assert densities[0] < densities[1] < densities[2]
    assert densities[1] == pytest.approx(_USUAL["avif"] + 1.0, abs=1.1)


@pytest.mark.parametrize("harder", [0.0, 0.5, -0.5])
def test_a_large_picture_is_encoded_once_at_the_quality_that_its_excerpt_asks_for(
    made: Callable[..., dict[Format, SearchingChain]], harder: float
) -> None:
    zoom = _large(jpeg=harder, webp=-harder, avif=harder / 2)
    chains = made(zoom, _Pictured(960_000), _Pictured(150_000))
    for kind, chain in chains.items():
        (quality,) = zoom.asked[kind]
        file = chain.done[id(zoom)]
        assert (file.quality, len(file.data)) == (quality, zoom.pixels / 100)
        assert zoom.score(file.data) == pytest.approx(75, abs=1)


@pytest.mark.parametrize("kind", ["webp", "avif"])
@pytest.mark.parametrize("told", [6.0, -6.0])
def test_a_large_photograph_is_made_once_however_far_its_excerpt_is_from_the_others(
    made: Callable[..., dict[Format, SearchingChain]], kind: Format, told: float
) -> None:
    zoom = _large(**{kind: told})
    file = made(zoom, _Pictured(960_000), _Pictured(150_000))[kind].done[id(zoom)]
    assert zoom.asked[kind] == [file.quality]
    assert zoom.score(file.data) == pytest.approx(75, abs=1)


def test_sizes_below_a_large_photograph_begin_between_what_it_and_the_small_one_told(
    made: Callable[..., dict[Format, SearchingChain]],
) -> None:
    levels = []
    for needs in (-4.0, 0.0, 4.0):
        detail = _Pictured(960_000)
        made(_large(webp=needs), detail, _Pictured(150_000))
        levels.append(_first_level(detail, "webp"))
    apart = 4 / slope("webp", _USUAL["webp"])
    assert levels[0] < levels[1] < levels[2]
    assert 0.3 * 2 * apart < levels[2] - levels[0] < 0.8 * 2 * apart


def test_a_large_jpeg_is_compared_with_itself_where_its_excerpt_jumps_over_the_target(
    made: Callable[..., dict[Format, SearchingChain]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where the original is a JPEG of that very size."""
    zoom = _large()
    assert zoom.excerpt is not None
    score = zoom.excerpt.score
    monkeypatch.setattr(zoom.excerpt, "score", lambda data: score(data) + (3 if score(data) >= 75 else -3))
    file = made(zoom, _Pictured(960_000), _Pictured(150_000))["jpeg"].done[id(zoom)]
    assert file.score == zoom.score(file.data) == pytest.approx(75, abs=CLOSE)


def test_a_large_drawing_is_tried_itself(
    made: Callable[..., dict[Format, SearchingChain]],
) -> None:
    page = _large(jpeg=5.0, avif=-7.0)
    page.is_drawn = True
    chains = made(page, _Pictured(960_000), _Pictured(150_000))
    assert page.excerpt is not None
    assert page.excerpt.asked == {}
    assert {kind: chain.done[id(page)].score for kind, chain in chains.items()} == pytest.approx(
        dict.fromkeys(chains, 75), abs=2
    )


def test_a_large_picture_that_is_alone_is_searched_by_its_excerpt(
    made: Callable[..., dict[Format, SearchingChain]],
) -> None:
    zoom = _large(webp=4.0)
    for kind, chain in made(zoom).items():
        assert len(zoom.asked[kind]) == 1
        assert zoom.score(chain.done[id(zoom)].data) == pytest.approx(75, abs=1.7)


def test_a_search_begins_where_those_of_its_leaders_ended(
    made: Callable[..., dict[Format, SearchingChain]],
) -> None:
    """What needs a higher level as a JPEG, and then more bytes, is expected to need one as WebP and as AVIF."""
    begun = []
    for points, density in ((-3.0, 8.0), (0.0, 10.0), (3.0, 12.5)):
        one = _Pictured(150_000, needs=dict.fromkeys(("jpeg", "webp", "avif"), points), density=density)
        made(one)
        begun.append((_first_level(one, "webp"), _first_level(one, "avif")))
    assert begun[0][0] < begun[1][0] < begun[2][0]
    assert begun[0][1] < begun[1][1] < begun[2][1]
    assert begun[1] == pytest.approx((_USUAL["webp"], _USUAL["avif"]), abs=6)


def test_what_is_unusual_when_small_is_expected_to_be_less_so_when_larger(
    made: Callable[..., dict[Format, SearchingChain]],
) -> None:
    levels = []
    for points in (-4.0, 4.0):
        small, detail = (_Pictured(pixels, needs={"jpeg": points}) for pixels in (150_000, 960_000))
        made(detail, small)
        zoom = _large(jpeg=points)
        made(zoom, _Pictured(150_000, needs={"jpeg": points}))
        assert zoom.excerpt is not None
        levels.append([small.asked["jpeg"][-1], detail.asked["jpeg"][0], zoom.excerpt.asked["jpeg"][0]])
    small_apart, detail_apart, zoom_apart = (hard - easy for easy, hard in zip(*levels, strict=True))
    assert detail_apart <= small_apart - 2
    assert zoom_apart <= detail_apart - 2


def test_what_takes_longest_is_begun_as_soon_as_it_can_be(
    made: Callable[..., dict[Format, SearchingChain]], encoded: list[tuple[str, int]]
) -> None:
    zoom = _Pictured(3_840_000, excerpt=_Pictured(590_000))
    made(zoom, _Pictured(960_000), _Pictured(250_000, whole=False), _Pictured(150_000))
    avif = dict.fromkeys(pixels for kind, pixels in encoded if kind == "avif")
    assert list(avif) == [150_000, 590_000, 960_000, 3_840_000, 250_000]
    assert encoded.index(("avif", 3_840_000)) < encoded.index(("webp", 3_840_000))


def test_at_fixed_quality_what_takes_longest_is_begun_first(
    made: Callable[..., dict[Format, SearchingChain]], encoded: list[tuple[str, int]]
) -> None:
    """One large JPEG at the end would keep one thread waiting for the other."""
    made(_Pictured(3_840_000), _Pictured(960_000), _Pictured(90_000), recipe=replace(MEDIA, adaptive=False))
    assert encoded == [
        ("avif", 960_000),
        ("avif", 3_840_000),  # with less effort
        ("webp", 3_840_000),
        ("webp", 960_000),
        ("jpeg", 3_840_000),
        ("avif", 90_000),
        ("jpeg", 960_000),
        ("webp", 90_000),
        ("jpeg", 90_000),
    ]
