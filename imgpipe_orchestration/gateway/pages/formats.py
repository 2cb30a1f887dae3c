"""Jinja filters: durations, bytes, money, moments and names as text."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from zoneinfo import ZoneInfo

from imgpipe_orchestration.storage.backlog import HELD_UP_LIMIT, HeldUp
from imgpipe_orchestration.web.sizes import size_text


def duration(seconds: float | None) -> str:
    """`42 s`, `7 min`, `3.5 h`, `4 days`; a dash for None."""
    if seconds is None:
        return "–"
    if seconds < 10 and seconds != int(seconds):
        return f"{seconds:.1f} s"
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 2 * 86400 else f"{seconds / 86400:.0f} days"


def size(count: int | None) -> str:
    """Bytes as `size_text`; a dash for None."""
    return "–" if count is None else size_text(count)


def number(count: int | None) -> str:
    """With thin groups of thousands: `12 345`."""
    return "–" if count is None else f"{count:,}".replace(",", "\u202f")


def money(amount: Decimal | float) -> str:
    """US dollars with four decimals, because one image costs a cent or less."""
    return f"${amount:,.4f}"


def percent(share: float) -> str:
    """A share of 1 as `42 %`; one that would be rounded to nothing as `< 1 %`."""
    return "< 1 %" if 0 < share < 0.005 else f"{share * 100:.0f} %"


def moment(at: datetime | str | None, zone: str = "UTC") -> str:
    """`20 Nov 2026, 09:41:07 UTC`; `... CET` in the zone Europe/Berlin; a dash for None."""
    if at is None:
        return "–"
    at = datetime.fromisoformat(at) if isinstance(at, str) else at
    return at.astimezone(ZoneInfo(zone)).strftime("%d %b %Y, %H:%M:%S %Z")


def ago(at: datetime | str | None) -> str:
    """`just now`, `7 minutes ago`, `yesterday`; `in 3 hours` for what is to come; a dash for None."""
    if at is None:
        return "–"
    at = datetime.fromisoformat(at) if isinstance(at, str) else at
    seconds = (datetime.now(UTC) - at).total_seconds()
    if abs(seconds) < 45:
        return "just now" if seconds > 0 else "in a moment"
    said = _rounded(abs(seconds))
    if seconds > 0:
        return "yesterday" if said == "1 day" else f"{said} ago"
    return "tomorrow" if said == "1 day" else f"in {said}"


def _rounded(seconds: float) -> str:
    """In the largest unit that fits, as people say it: `a minute`, `7 minutes`, `2 hours`, `5 days`."""
    for unit, length, until in (("minute", 60, 45 * 60), ("hour", 3600, 22 * 3600), ("day", 86400, 26 * 86400)):
        if seconds < until:
            count = max(1, round(seconds / length))
            article = {"minute": "a minute", "hour": "an hour"}.get(unit, f"1 {unit}")
            return article if count == 1 else f"{count} {unit}s"
    return f"{max(1, round(seconds / (30.4 * 86400)))} months" if seconds >= 45 * 86400 else "a month"


def sentence(words: str) -> str:
    """An error as a sentence: `The jpeg is cut short.` A name at its beginning (`a.jpg`, `max_age`) stays as it is."""
    first = words.partition(" ")[0].rstrip(":,;")
    return (
        (words[:1].upper() if first.replace("'", "").isalpha() else words[:1])
        + words[1:]
        + ("" if words.endswith((".", "!", "?")) or not words else ".")
    )


SHORT = 160


def short(words: str) -> str:
    """The beginning of what may be long, for headings and lists."""
    return words if len(words) <= SHORT else words[: SHORT - 1].rstrip() + "…"


_SPELLED = {
    "ai": "AI",
    "openai": "OpenAI",
    "google vision": "Google Vision",
    "flowise": "Flowise",
    "urls": "URLs",
    "avif": "AVIF",
    "webp": "WebP",
    "jpeg": "JPEG",
    "png": "PNG",
}
_TO_SPELL = re.compile(rf"\b({'|'.join(_SPELLED)})\b")


def held_up(reason: HeldUp | None) -> str:
    """How many items wait and why, in a sentence; empty for None."""
    if reason is None:
        return ""
    more = " or more" if reason.count >= HELD_UP_LIMIT else ""
    return f"{number(reason.count)}{more} waiting: {sentence(short(reason.error))}"


def words(name: str) -> str:
    """`vision_reports` as `vision reports`, `openai_vision` as `OpenAI vision`."""
    return _TO_SPELL.sub(lambda found: _SPELLED[found[0]], name.replace("-", " ").replace("_", " "))


def title(name: str) -> str:
    """`words`, with the first letter large."""
    spelled = words(name)
    return spelled[:1].upper() + spelled[1:]


FILTERS: dict[str, Callable[..., str]] = {
    "duration": duration,
    "size": size,
    "number": number,
    "money": money,
    "percent": percent,
    "moment": moment,
    "ago": ago,
    "words": words,
    "title": title,
    "held_up": held_up,
    "sentence": sentence,
    "short": short,
}
