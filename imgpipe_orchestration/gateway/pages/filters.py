"""Jinja filters: durations, bytes, money, moments and names as text."""

import re
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from zoneinfo import ZoneInfo

from imgpipe_orchestration.storage.backlog import HELD_UP_LIMIT, HeldUp
from imgpipe_orchestration.web.texts import duration, short, size_text


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


def ago(at: datetime | None) -> str:
    """`just now`, `7 minutes ago`, `1 day ago`; `in 3 hours` for what is to come; a dash for None."""
    if at is None:
        return "–"
    seconds = (datetime.now(UTC) - at).total_seconds()
    if abs(seconds) < 45:
        return "just now" if seconds > 0 else "in a moment"
    # 59.5 minutes are an hour, 23.5 hours a day.
    units = (("day", 86400, 84600), ("hour", 3600, 3570), ("minute", 60, 0))
    unit, length = next((unit, length) for unit, length, least in units if abs(seconds) >= least)
    count = round(abs(seconds) / length)
    said = f"{count} {unit}{'' if count == 1 else 's'}"
    return f"{said} ago" if seconds > 0 else f"in {said}"


def sentence(words: str) -> str:
    """An error as a sentence: `The jpeg is cut short.` A name at its beginning (`a.jpg`, `max_age`) stays as it is."""
    first = words.partition(" ")[0].rstrip(":,;")
    return (
        (words[:1].upper() if first.replace("'", "").isalpha() else words[:1])
        + words[1:]
        + ("" if words.endswith((".", "!", "?")) or not words else ".")
    )


_SPELLED = {
    "ai": "AI",
    "cdn": "CDN",
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


_EVERY = (duration, size, number, money, percent, moment, ago, words, title, held_up, sentence, short)
FILTERS: dict[str, Callable[..., str]] = {one.__name__: one for one in _EVERY}
