"""Which variant of an image a request gets, and why. Pure: from a manifest and a query to a choice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from imgpipe_orchestration.errors import BadInput, NotFound
from imgpipe_orchestration.media.serving.negotiation import MIME_OF, Choice, choose
from imgpipe_orchestration.media.store import StoredVariant

SIZES = ("thumbnail", "small", "grid", "detail", "header", "zoom")
FALLBACK = {"thumbnail": "small", "small": "grid", "grid": "detail"}
"""What stands in for a size that is not there, as the documents have it."""
DEFAULT_SIZE = "detail"
BACKGROUNDS = ("original", "removed")

_SUBSTITUTES = {
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

    @property
    def negotiates(self) -> bool:
        """Whether the answer depends on Accept."""
        return self.format is None


@dataclass(frozen=True, slots=True)
class Decision:
    """The variant, and the reasons for it."""

    variant: StoredVariant
    negotiated: bool
    size_reason: str
    format_reason: str

    def explained(self, wish: Wish, accept: str | None) -> dict[str, Any]:
        """For `?explain=1`."""
        variant = self.variant
        return {
            "asked": {"size": wish.size, "format": wish.format, "bg": wish.background, "accept": accept},
            "given": {
                "size": variant.size,
                "format": variant.format,
                "bg": variant.background,
                "width": variant.width,
                "height": variant.height,
                "bytes": variant.bytes,
                "sha256": variant.sha256,
            },
            "because": {"size": self.size_reason, "format": self.format_reason},
            "varies_with_accept": self.negotiated,
        }


def read(sizes: Sequence[str], formats: Sequence[str], backgrounds: Sequence[str]) -> Wish:
    """The wish in a query. Of a parameter given twice the last one wins: the documents' front end appends `?size=` to
    URLs that have one already, which also makes values such as `detail?size=thumbnail`.

    Raises:
        UnknownOption: a value that does not exist.
    """
    size = sizes[-1].rpartition("?size=")[2] if sizes else DEFAULT_SIZE
    if size not in SIZES:
        raise UnknownOption(f"size must be one of {', '.join(SIZES)}.", field="size")
    format_ = formats[-1].lower() if formats else None
    format_ = "jpeg" if format_ == "jpg" else format_
    if format_ is not None and format_ not in MIME_OF:
        raise UnknownOption(f"format must be one of {', '.join(MIME_OF)}.", field="format")
    background = backgrounds[-1] if backgrounds else "original"
    if background not in BACKGROUNDS:
        raise UnknownOption(f"bg must be one of {', '.join(BACKGROUNDS)}.", field="bg")
    return Wish(size, format_, background)


def decide(manifest: Sequence[StoredVariant], wish: Wish, accept: str | None) -> Decision:
    """The variant for a wish.

    Raises:
        NotFound: neither the size nor what stands in for it is there, or no version without background.
    """
    candidates, size_reason = _of_size(manifest, wish)
    available = [variant.format for variant in candidates]
    if wish.format is None:
        choice = choose(accept, available)
    else:
        found = next((name for name in _SUBSTITUTES[wish.format] if name in available), available[0])
        same = found == wish.format
        choice = Choice(found, "the URL asks for it" if same else f"there is no {wish.format}; this is the next best")
    variant = next(v for v in candidates if v.format == choice.format)
    return Decision(variant, wish.negotiates, size_reason, choice.reason)


def _of_size(manifest: Sequence[StoredVariant], wish: Wish) -> tuple[list[StoredVariant], str]:
    size: str | None = wish.size
    while size:
        found = [v for v in manifest if v.size == size and v.background == wish.background]
        if found:
            return found, "as asked" if size == wish.size else f"there is no {wish.size}; {size} stands in"
        size = FALLBACK.get(size)
    if wish.background == "removed":
        raise NotFound("This image has no version without its background; ask for bg=original.")
    raise NotFound(f"This image has no size {wish.size}.")
