"""Which of the formats at hand suits an `Accept` header (RFC 9110, section 12.5.1)."""

from __future__ import annotations

from collections.abc import Sequence

MIME_OF = {"avif": "image/avif", "webp": "image/webp", "jpeg": "image/jpeg", "png": "image/png"}
MODERN = ("avif", "webp")
"""Formats that are sent only to clients that name them: `image/*` and `*/*` are sent by clients that show neither."""
FALLBACK = ("jpeg", "png")


def choose(accept: str | None, available: Sequence[str]) -> str:
    """The best of `available` for this client; never none: a client that accepts no image gets JPEG or PNG.

    Among the formats that the client names with the highest quality, ours is the order: AVIF, WebP, JPEG, PNG.
    """
    qualities = parse(accept)
    ranked = [name for name in (*MODERN, *FALLBACK) if name in available]
    best = max(ranked, key=lambda name: (_quality(name, qualities), -ranked.index(name)))
    if _quality(best, qualities) > 0:
        return best
    return next((name for name in ranked if name in FALLBACK), ranked[0])


def parse(accept: str | None) -> dict[str, float]:
    """Media ranges with their qualities; what cannot be read is left out, as RFC 9110 lets a server do."""
    qualities: dict[str, float] = {}
    for part in (accept or "").split(","):
        media_range, *parameters = (piece.strip().lower() for piece in part.split(";"))
        if "/" not in media_range:
            continue
        quality = 1.0
        for parameter in parameters:
            name, _, value = parameter.partition("=")
            if name.strip() == "q":
                try:
                    quality = float(value)
                except ValueError:
                    quality = -1.0
        if 0.0 <= quality <= 1.0:
            qualities[media_range] = max(quality, qualities.get(media_range, 0.0))
    return qualities


def _quality(name: str, qualities: dict[str, float]) -> float:
    exact = qualities.get(MIME_OF[name])
    if exact is not None:
        return exact
    if name in MODERN:
        return 0.0
    return qualities.get("image/*", qualities.get("*/*", 0.0))
