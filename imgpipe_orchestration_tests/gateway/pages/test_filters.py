"""Figures as people read them."""

from datetime import UTC, datetime, timedelta

import pytest

from imgpipe_orchestration.gateway.pages import filters
from imgpipe_orchestration.gateway.pages.media import _distance
from imgpipe_orchestration.media.search import Found


def test_ages_are_said_as_people_say_them() -> None:
    said = [filters.ago(datetime.now(UTC) - timedelta(seconds=one)) for one in (3, 50, 118, 2.6 * 3600, 5 * 86400)]
    assert said == ["just now", "1 minute ago", "2 minutes ago", "3 hours ago", "5 days ago"]
    said = [filters.ago(datetime.now(UTC) - timedelta(seconds=one)) for one in (3560, 3590, 84500, 86000)]
    assert said == ["59 minutes ago", "1 hour ago", "23 hours ago", "1 day ago"]
    assert filters.ago(datetime.now(UTC) + timedelta(hours=5)) == "in 5 hours"
    assert filters.ago(None) == "–"
    winter = datetime(2026, 1, 5, 5, 0, tzinfo=UTC)
    assert filters.moment(winter, "Europe/Berlin") == "05 Jan 2026, 06:00:00 CET"


@pytest.mark.parametrize(
    "why, distance, said",
    [
        ("words", None, "words"),
        ("meaning", 0.42, "58% alike in meaning"),
        ("words, meaning", 0.42, "words, meaning"),
        ("looks", 0.0, "looks the same"),
        ("colour", 0.05, "colour 95% alike"),
    ],
)
def test_a_search_result_says_how_near_it_is_by_what(why: str, distance: float | None, said: str) -> None:
    assert _distance(Found.model_construct(why=why, distance=distance)) == said
