"""Figures as people read them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal

from imgpipe_orchestration.gateway.pages import formats


def test_bytes_are_spelled_where_they_are_few() -> None:
    assert [formats.size(count) for count in (0, 1, 366, 5 << 20)] == ["0 bytes", "1 byte", "366 bytes", "5 MB"]


def test_an_error_is_a_sentence() -> None:
    told = ("the jpeg is cut short", "Try again.", "", "a.jpg: it is empty", "it's in the way", "max_age must be 1")
    assert [formats.sentence(e) for e in told] == [
        "The jpeg is cut short.",
        "Try again.",
        "",
        "a.jpg: it is empty.",
        "It's in the way.",
        "max_age must be 1.",
    ]


def test_ages_are_said_as_people_say_them() -> None:
    minute, hour, day = 60, 3600, 86400
    seconds = (3, 50, 118, 44 * minute, 50 * minute, 2.6 * hour, 23 * hour, 5 * day, 29 * day, 100 * day)
    said = [formats.ago(datetime.now(UTC) - timedelta(seconds=one)) for one in seconds]
    assert said == [
        "just now", "a minute ago", "2 minutes ago", "44 minutes ago", "an hour ago", "3 hours ago", "yesterday",
        "5 days ago", "a month ago", "3 months ago",
    ]  # fmt: skip
    assert formats.ago(datetime.now(UTC) + timedelta(hours=5)) == "in 5 hours"
    assert formats.ago(None) == "–"
    winter = datetime(2026, 1, 5, 5, 0, tzinfo=UTC)
    assert formats.moment(winter, "Europe/Berlin") == "05 Jan 2026, 06:00:00 CET"


def test_money_has_four_decimals_whatever_the_amount() -> None:
    amounts = (0, Decimal("0.0098"), Decimal("0.156"), 1, Decimal("1234.5"))
    assert [formats.money(amount) for amount in amounts] == ["$0.0000", "$0.0098", "$0.1560", "$1.0000", "$1,234.5000"]


def test_a_small_share_is_not_rounded_to_none() -> None:
    shares = (0, 0.0014, 0.0049, 0.005001, 0.914, 1)
    assert [formats.percent(share) for share in shares] == ["0 %", "< 1 %", "< 1 %", "1 %", "91 %", "100 %"]


def test_names_are_spelled_as_their_owners_do() -> None:
    spelled = {
        "google_vision": "Google Vision",
        "openai_vision": "OpenAI vision",
        "webp": "WebP",
        "ai_visual_analysis": "AI visual analysis",
    }
    assert {name: formats.title(name) for name in spelled} == spelled
    assert formats.title("vision-reports") == "Vision reports"
