"""`<picture>` elements for web pages."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from urllib.parse import urlencode

from imgpipe_orchestration.imaging.formats import MIME_OF
from imgpipe_orchestration.media.serving.decision import Decision
from imgpipe_orchestration.media.serving.negotiation import MODERN, ORDER
from imgpipe_orchestration.media.variants import StoredVariant


def picture(
    url: str,
    manifest: Sequence[StoredVariant],
    chosen: Decision,
    *,
    alt: str,
    placeholder: str | None,
    sizes: str = "",
    loading: str = "lazy",
    further: dict[str, str] | None = None,
) -> str:
    """The element: a source for each modern format with all widths of the chosen size's shape, and an `<img>` in the
    format that every browser shows.

    It reserves its place in the layout and shows a blurred placeholder until it is loaded; not if it is transparent
    (PNG), as the placeholder would stay visible behind it.

    Args:
        url: the image's smart URL, without parameters.
        chosen: the default size; sizes of another shape are left out.
        sizes: as for `<img>`; if empty, as wide as the chosen size but not wider than the window.
        further: parameters for every URL (`bg`, `signature`, `version`).
    """
    main = chosen.variant
    alike = [one for one in manifest if one.background == main.background and _same_shape(one, main)]
    widths = {one.width: one.size for one in sorted(alike, key=lambda one: one.size == main.size)}
    sizes = sizes or f"(max-width: {main.width}px) 100vw, {main.width}px"

    def address(size: str, format_: str) -> str:
        return f"{url}?{urlencode({'size': size, 'format': format_, **(further or {})})}"

    def widths_of(format_: str) -> str:
        return ", ".join(f"{address(size, format_)} {width}w" for width, size in sorted(widths.items()))

    formats = [name for name in ORDER if any(one.format == name for one in alike)]
    plain = next((name for name in formats if name not in MODERN), formats[-1])
    lines = ["<picture>"]
    for name in formats:
        if name != plain:
            lines.append(_element("source", type=MIME_OF[name], srcset=widths_of(name), sizes=sizes))
    shown = {"src": address(main.size, plain), "srcset": widths_of(plain), "sizes": sizes}
    place = {"width": str(main.width), "height": str(main.height), "alt": alt, "loading": loading}
    meanwhile = _behind(placeholder) if plain == "jpeg" else {}
    lines.append(_element("img", **shown, **place, decoding="async", **meanwhile))
    return "\n".join([*lines, "</picture>\n"])


def waiting(url: str, *, alt: str, width: int | None, height: int | None, further: dict[str, str]) -> str:
    """The element for an image without variants, whose URL shows the original or a placeholder."""
    place = {"width": str(width), "height": str(height)} if width and height else {}
    source = f"{url}?{urlencode(further)}" if further else url
    return f"<picture>\n{_element('img', src=source, **place, alt=alt, decoding='async')}\n</picture>\n"


def _element(name: str, **attributes: str) -> str:
    words = [f'{key}="{escape(value)}"' for key, value in attributes.items()]
    return f"<{' '.join([name, *words])}>"


def _same_shape(one: StoredVariant, other: StoredVariant) -> bool:
    """Whether two variants have the same shape, as far as rounding to whole pixels allows."""
    return abs(one.width * other.height - other.width * one.height) <= max(one.width, other.width, one.height)


def _behind(placeholder: str | None) -> dict[str, str]:
    return {"style": f"background:url({placeholder}) 0 0/100% 100% no-repeat"} if placeholder else {}
