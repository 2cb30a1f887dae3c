"""Which variant of an image a request gets, and why. Pure: from a manifest and a query to a choice."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any
from urllib.parse import parse_qsl

from imgpipe_orchestration.errors import BadInput, NotFound
from imgpipe_orchestration.imaging.formats import MIME_OF
from imgpipe_orchestration.imaging.recipe import MEDIA_SIZES
from imgpipe_orchestration.media.serving.negotiation import LONGEST_KEPT, ORDER, Choice, choose
from imgpipe_orchestration.media.store import StoredVariant

SIZES = tuple(size.name for size in MEDIA_SIZES)
FALLBACK = {"thumbnail": "small", "small": "grid", "grid": "detail"}
"""What stands in for a size that is not there, as the documents have it."""
ANY = ("detail", "zoom", "grid", "small", "header", "thumbnail")
"""What stands in for a size of which the object store has nothing, and nothing of what else stands in for it; those
that show all of the picture come first."""
DEFAULT_SIZE = "detail"
BACKGROUNDS = ("original", "removed")

SUBSTITUTES = {
    "avif": ("avif", "webp", "jpeg", "png"),
    "webp": ("webp", "jpeg", "png"),
    "jpeg": ("jpeg", "png"),
    "png": ("png", "jpeg"),
}
"""What an explicit format may be answered with: a format is left out of a manifest when it came out larger than the
next one, and JPEG is PNG where there is transparency. Each is shown wherever the one asked for is."""


class UnknownOption(BadInput):
    """A query parameter outside its values."""

    status = 400


@dataclass(frozen=True, slots=True)
class Wish:
    """What a URL asks for."""

    size: str
    format: str | None
    background: str
    explain: bool
    signature: str | None

    @property
    def parameters(self) -> dict[str, str | None]:
        """What was asked for, by the names of the parameters."""
        return {"size": self.size, "format": self.format, "bg": self.background}


@dataclass(frozen=True, slots=True)
class Decision:
    """The variant, and the reasons for it."""

    variant: StoredVariant
    size_reason: str
    format_reason: str

    def explained(self, wish: Wish, accept: str | None, lost: StoredVariant | None = None) -> dict[str, Any]:
        """For `?explain=1`. `lost`: the variant for which this one stands in."""
        variant = self.variant
        because = {"size": self.size_reason, "format": self.format_reason}
        if lost:
            because["status"] = (
                f"{lost.size} as {lost.format} is gone from the object store or damaged there, until it is made again "
                "at night; another variant stands in."
            )
        return {
            "asked": {**wish.parameters, "accept": accept},
            "given": {
                "size": variant.size,
                "format": variant.format,
                "bg": variant.background,
                "width": variant.width,
                "height": variant.height,
                "bytes": variant.bytes,
                "sha256": variant.sha256,
            },
            "because": because,
            "varies_with_accept": wish.format is None,
        }


def explained_meanwhile(wish: Wish, accept: str | None, *, original: bool) -> dict[str, Any]:
    """For `?explain=1` of an image that has no variants yet."""
    shown = "its original is shown" if original else "a placeholder is, for no browser shows its original"
    return {
        "asked": {**wish.parameters, "accept": accept},
        "given": None,
        "because": {"status": f"The image is being processed; until its variants are there, {shown}."},
        "varies_with_accept": False,
    }


def read(query: bytes) -> Wish:
    """The wish in a query string. Of a parameter given twice the last one wins, and a further `?` is read as `&`: the
    documents' front end appends `?size=thumbnail` to URLs that end in `?size=detail` already, and some clients encode
    that to `detail%3Fsize%3Dthumbnail`.

    Raises:
        UnknownOption: a value that does not exist.
    """
    return _remembered(query) if len(query) <= LONGEST_KEPT else _read(query)


def _read(query: bytes) -> Wish:
    given = dict(parse_qsl(query.decode("latin-1").replace("?", "&"), keep_blank_values=True))
    format_ = given.get("format")
    if format_ is not None:
        format_ = _one_of(MIME_OF, "format", "jpeg" if format_.lower() == "jpg" else format_.lower())
    return Wish(
        size=_one_of(SIZES, "size", given.get("size", DEFAULT_SIZE).rpartition("?size=")[2]),
        format=format_,
        background=_one_of(BACKGROUNDS, "bg", given.get("bg", BACKGROUNDS[0])),
        explain=given.get("explain", "").lower() in {"1", "true", "yes", "on"},
        signature=given.get("signature"),
    )


_remembered = lru_cache(maxsize=4096)(_read)


def _one_of(known: Collection[str], name: str, value: str) -> str:
    if value not in known:
        raise UnknownOption(f"{name} must be one of {', '.join(known)}.", field=name)
    return value


Shelves = Mapping[tuple[str, str], Mapping[str, StoredVariant]]
"""A manifest to choose from: variants by size and background, then by format in our order."""


def shelved(variants: Iterable[StoredVariant]) -> Shelves:
    """A manifest as `decide` wants it."""
    shelves: dict[tuple[str, str], dict[str, StoredVariant]] = {}
    for variant in sorted(variants, key=lambda one: ORDER.index(one.format)):
        shelves.setdefault((variant.size, variant.background), {})[variant.format] = variant
    return shelves


def decide(manifest: Shelves, wish: Wish, accept: str | None) -> Decision:
    """The variant for a wish.

    Raises:
        NotFound: neither the size nor what stands in for it is there, or no version without background.
    """
    return _chosen(manifest, wish, accept, _stand_ins(wish.size))


def stand_in(manifest: Shelves, wish: Wish, accept: str | None) -> Decision:
    """The variant for a wish when what it decides on is not to be had: of what else there is, whatever size it has.

    Raises:
        NotFound: nothing is left, or no version without background.
    """
    return _chosen(manifest, wish, accept, (*_stand_ins(wish.size), *ANY))


def _stand_ins(size: str) -> tuple[str, ...]:
    return (size, *_stand_ins(FALLBACK[size])) if size in FALLBACK else (size,)


def _chosen(manifest: Shelves, wish: Wish, accept: str | None, sizes: Iterable[str]) -> Decision:
    shelf, size_reason = _of_size(manifest, wish, sizes)
    if wish.format is None:
        choice = choose(accept, tuple(shelf))
    else:
        found = next((name for name in SUBSTITUTES[wish.format] if name in shelf), next(iter(shelf)))
        same = found == wish.format
        choice = Choice(found, "the URL asks for it" if same else f"there is no {wish.format}; this is the next best")
    return Decision(shelf[choice.format], size_reason, choice.reason)


def _of_size(manifest: Shelves, wish: Wish, sizes: Iterable[str]) -> tuple[Mapping[str, StoredVariant], str]:
    for size in sizes:
        found = manifest.get((size, wish.background))
        if found:
            return found, "as asked" if size == wish.size else f"there is no {wish.size}; {size} stands in"
    if wish.background == "removed":
        raise NotFound("This image has no version without its background; ask for bg=original.")
    raise NotFound(f"This image has no size {wish.size}.")
