"""Figures as people read them."""

from __future__ import annotations

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
