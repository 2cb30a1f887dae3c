"""Short texts: names and the like from outside, made fit to be shown and stored; sizes and times in words; tables."""

import csv
import io
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import Any

_DIRECTIONS = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\ufeff")
"""Characters that change the writing direction, with which a file name can be made to look like another."""
_BREAKS = frozenset({"Cc", "Zl", "Zp"})


def clean_name(name: str) -> str:
    """A file's name without control and directional characters: it moves no cursor and looks like what it is."""
    return "".join(c for c in name if unicodedata.category(c) not in {*_BREAKS, "Cs"} and c not in _DIRECTIONS).strip()


def plain_text(value: Any, limit: int) -> str:
    """Text from outside as one line of at most `limit` characters, without control and directional characters."""
    text = "".join(" " if unicodedata.category(c) in _BREAKS else c for c in str(value or ""))
    return short(" ".join(clean_name(text).split()), limit)


def short(words: str, most: int = 160) -> str:
    """The beginning of what may be longer than `most` characters."""
    return words if len(words) <= most else words[: most - 1].rstrip() + "…"


def size_text(count: int) -> str:
    """Bytes: `812 bytes`, `42 KB`, `3.1 MB`, of 1024 each."""
    if count < 1024:
        return "1 byte" if count == 1 else f"{count} bytes"
    if count < 1024 * 1024:
        return f"{count / 1024:.0f} KB"
    return f"{count / 1024 / 1024:.1f}".removesuffix(".0") + " MB"


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


def csv_of(header: Sequence[str], rows: Iterable[Iterable[Any]]) -> Iterator[str]:
    """A table as CSV, a line at a time."""
    for row in chain([header], rows):
        line = io.StringIO()
        csv.writer(line).writerow(_cell(value) for value in row)
        yield line.getvalue()


def _cell(value: Any) -> Any:
    """A text from outside that a spreadsheet would run as a formula gets a quote in front (OWASP, CSV injection). And
    no number is written as `4e-08`."""
    if isinstance(value, float):
        return f"{value:.8f}"
    return f"'{value}" if isinstance(value, str) and value[:1] in {"=", "+", "-", "@", "\t", "\r"} else value
