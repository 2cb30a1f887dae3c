"""Which variant of an image a request gets, and why. Pure functions of a manifest, a query and an `Accept` header."""

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple
from urllib.parse import parse_qsl

from imgpipe_orchestration.errors import BadInput, NotFound
from imgpipe_orchestration.imaging.formats import MIME_OF
from imgpipe_orchestration.imaging.recipe import MEDIA_SIZES
from imgpipe_orchestration.media.store import StoredVariant

MODERN = frozenset({"avif", "webp"})
"""Formats that are sent only to clients that name them or refuse all others, because clients that show neither send
`image/*` and `*/*`."""
ORDER = tuple(MIME_OF)
"""Our preference among formats that the client accepts equally."""
_QUOTED = re.compile(r'"(?:\\.|[^"\\])*"?')
"""A quoted parameter, whose commas and semicolons do not separate. The closing quote is optional, or a header full of
quotes would be searched again from each of them."""
_WEIGHT = re.compile(r"[0-9]+\.?[0-9]*|\.[0-9]+")
LONGEST_KEPT = 512
"""Longest text of a request whose parsed form is cached, so that strangers cannot fill the memory."""

SIZES = tuple(size.name for size in MEDIA_SIZES)
FALLBACK = {"thumbnail": "small", "small": "grid", "grid": "detail"}
"""The size that replaces one that does not exist, by the specification."""
DEFAULT_SIZE = "detail"
BACKGROUNDS = ("original", "removed")

SUBSTITUTES = {
    "avif": ("avif", "webp", "jpeg", "png"),
    "webp": ("webp", "jpeg", "png"),
    "jpeg": ("jpeg", "png"),
    "png": ("png", "jpeg"),
}
"""What an explicit format may be answered with, because a manifest lacks formats that came out larger than a better
supported one, and has PNG instead of JPEG for transparency. Clients that show the requested format also show these."""


_SWITCH = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}


class UnknownOption(BadInput):
    """A query parameter with an unknown value."""

    status = 400


class Wish(NamedTuple):
    """What a URL asks for. A tuple, which is hashed in a quarter of a dataclass's time."""

    size: str
    format: str | None
    background: str
    explain: bool
    signature: str | None
    version: str | None

    @property
    def parameters(self) -> dict[str, str | None]:
        """The requested values, by parameter name."""
        return {"size": self.size, "format": self.format, "bg": self.background}


@dataclass(frozen=True, slots=True)
class Decision:
    """The variant, and the reasons for it."""

    variant: StoredVariant
    size_reason: str
    format_reason: str

    def explained(self, wish: Wish, accept: str | None) -> dict[str, Any]:
        """The answer for `?explain=1`."""
        given = {("bg" if name == "background" else name): value for name, value in self.variant._asdict().items()}
        del given["object_key"]
        return {
            "asked": {**wish.parameters, "accept": accept},
            "given": given,
            "because": {"size": self.size_reason, "format": self.format_reason},
            "varies_with_accept": wish.format is None,
        }


def explained_meanwhile(wish: Wish, accept: str | None, *, original: bool) -> dict[str, Any]:
    """The answer for `?explain=1` of an image that has no variants yet."""
    shown = "its original is shown" if original else "a placeholder is shown, because no browser shows its original"
    return {
        "asked": {**wish.parameters, "accept": accept},
        "given": None,
        "because": {"status": f"The image is being processed; until its variants are ready, {shown}."},
        "varies_with_accept": False,
    }


def read(query: bytes) -> Wish:
    """Parse a query string. The last value of a parameter counts, and another `?` is read as `&`: the specification's
    front end appends `?size=thumbnail` to URLs that already end in `?size=detail`, and some clients encode that as
    `detail%3Fsize%3Dthumbnail`.

    Raises:
        UnknownOption: a parameter has an unknown value.
    """
    return _remembered_wish(query) if len(query) <= LONGEST_KEPT else _read(query)


def _read(query: bytes) -> Wish:
    given = dict(parse_qsl(query.decode("latin-1").replace("?", "&"), keep_blank_values=True))
    format_ = given.get("format")
    if format_ is not None:
        format_ = _one_of(MIME_OF, "format", "jpeg" if format_.lower() == "jpg" else format_.lower())
    return Wish(
        size=_one_of(SIZES, "size", given.get("size", DEFAULT_SIZE).rpartition("?size=")[2]),
        format=format_,
        background=_one_of(BACKGROUNDS, "bg", given.get("bg", BACKGROUNDS[0])),
        explain=_SWITCH[_one_of(_SWITCH, "explain", given.get("explain", "0").lower() or "1")],
        signature=given.get("signature"),
        version=given.get("version"),
    )


_remembered_wish = lru_cache(maxsize=4096)(_read)


def _one_of(known: Collection[str], name: str, value: str) -> str:
    if value not in known:
        raise UnknownOption(f"{name} must be one of {', '.join(known)}.", field=name)
    return value


Shelves = Mapping[tuple[str, str], Mapping[str, StoredVariant]]
"""A manifest as variants by size and background, then by format in our order of preference."""


def shelved(variants: Iterable[StoredVariant]) -> Shelves:
    """A manifest as `decide` needs it."""
    shelves: dict[tuple[str, str], dict[str, StoredVariant]] = {}
    for variant in sorted(variants, key=lambda one: ORDER.index(one.format)):
        shelves.setdefault((variant.size, variant.background), {})[variant.format] = variant
    return shelves


def decide(manifest: Shelves, wish: Wish, accept: str | None, further: Sequence[str] = ()) -> Decision:
    """The variant for a wish.

    Args:
        further: sizes to fall back on after those of the specification.

    Raises:
        NotFound: neither the size nor a fallback exists, or there is no version without background.
    """
    shelf, size_reason = _of_size(manifest, wish, further)
    if wish.format is None:
        found, reason = choose(accept, tuple(shelf))
    else:
        found = next((name for name in SUBSTITUTES[wish.format] if name in shelf), next(iter(shelf)))
        same = found == wish.format
        reason = "the URL asks for it" if same else f"there is no {wish.format}; this is the next best"
    return Decision(shelf[found], size_reason, reason)


def decide_without(lost: Collection[StoredVariant], manifest: Shelves, wish: Wish, accept: str | None) -> Decision:
    """The variant for a wish when some are lost (first the one that was decided on): in a format that any client of
    those can show as well, and where no fallback size is left, of the nearest width, preferably of the same shape.

    Raises:
        NotFound: as `decide`, of what is left.
    """
    first = next(iter(lost))
    formats = SUBSTITUTES[first.format]
    left = [v for shelf in manifest.values() for v in shelf.values() if v.format in formats and v not in lost]

    def distance(one: StoredVariant) -> tuple[bool, int]:
        return not same_shape(one, first), abs(one.width - first.width)

    return decide(shelved(left), wish, accept, [one.size for one in sorted(left, key=distance)])


def same_shape(one: StoredVariant, other: StoredVariant) -> bool:
    """Whether two variants have the same shape, as far as rounding to whole pixels allows."""
    sides = (one.width, other.width, one.height, other.height)
    return abs(one.width * other.height - other.width * one.height) <= max(sides)


def stand_ins(size: str) -> tuple[str, ...]:
    """A size, and those that replace it where it does not exist, in their order."""
    return (size, *stand_ins(FALLBACK[size])) if size in FALLBACK else (size,)


def _of_size(manifest: Shelves, wish: Wish, further: Sequence[str]) -> tuple[Mapping[str, StoredVariant], str]:
    for size in (*stand_ins(wish.size), *further):
        found = manifest.get((size, wish.background))
        if found:
            return found, "as asked" if size == wish.size else f"there is no {wish.size}; {size} is used instead"
    if wish.background == "removed":
        raise NotFound("This image has no version without its background; ask for bg=original.")
    raise NotFound(f"This image has no size {wish.size}.")


# --- which of the available formats suits an `Accept` header best (RFC 9110, section 12.5.1) -------------------------


def choose(accept: str | None, available: tuple[str, ...]) -> tuple[str, str]:
    """The best of `available` for this client, and why; JPEG or PNG, not a 406, for one that accepts none of them."""
    return (_remembered if len(accept or "") <= LONGEST_KEPT else _choose)(accept or "", available)


def _choose(accept: str, available: tuple[str, ...]) -> tuple[str, str]:
    ranges = parse(accept)
    ranked = [name for name in ORDER if name in available]
    best = max(ranked, key=lambda name: (quality(name, ranges), -ranked.index(name)))
    liked = quality(best, ranges)
    if liked > 0:
        return best, f"the client accepts {MIME_OF[best]} with q={liked:g}; among equals AVIF, WebP, JPEG, PNG"
    # WebP before AVIF, as more programs show it.
    other = next((name for name in reversed(ranked) if _by_wildcard(name, ranges) > 0), None)
    if other is not None:
        return other, f"the client refuses what every browser shows and accepts {MIME_OF[other]} as any other"
    plain = next((name for name in ranked if name not in MODERN), ranked[0])
    return plain, "the client names no available format; every browser shows this one"


# There are only a few different headers of browsers, and a few sets of formats.
_remembered = lru_cache(maxsize=4096)(_choose)


def parse(accept: str) -> dict[str, float]:
    """Media ranges, in lower case and without parameters, with their qualities.

    Parts that cannot be parsed are ignored, as RFC 9110 allows. If a range is repeated, the higher quality counts.
    Media type parameters other than q are ignored, because our types have none.
    """
    ranges: dict[str, float] = {}
    for part in _QUOTED.sub('""', accept).split(","):
        name, *parameters = (piece.strip().lower() for piece in part.split(";"))
        kind, slash, subtype = name.partition("/")
        if not slash or not kind or not subtype or (kind == "*" and subtype != "*"):
            continue
        weight = _weight(parameters)
        if weight is not None:
            ranges[name] = max(weight, ranges.get(name, 0.0))
    return ranges


def _weight(parameters: Sequence[str]) -> float | None:
    """The q of a range; 1 where there is none, None where it cannot be parsed."""
    pairs = (parameter.partition("=") for parameter in parameters)
    value = next((value.strip() for name, _, value in pairs if name.strip() == "q"), "1")
    return float(value) if _WEIGHT.fullmatch(value) and float(value) <= 1.0 else None


def quality(name: str, ranges: dict[str, float]) -> float:
    """The quality of a format for a client, 0 if it is refused; the most specific range counts."""
    return ranges.get(MIME_OF[name], 0.0) if name in MODERN else _by_wildcard(name, ranges)


def _by_wildcard(name: str, ranges: dict[str, float]) -> float:
    return ranges.get(MIME_OF[name], ranges.get("image/*", ranges.get("*/*", 0.0)))
