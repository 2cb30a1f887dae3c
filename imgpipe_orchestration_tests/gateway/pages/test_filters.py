"""Figures as people read them."""

from datetime import UTC, datetime, timedelta

from imgpipe_orchestration.gateway.pages import filters


def test_ages_are_said_as_people_say_them() -> None:
    said = [filters.ago(datetime.now(UTC) - timedelta(seconds=one)) for one in (3, 50, 118, 2.6 * 3600, 5 * 86400)]
    assert said == ["just now", "1 minute ago", "2 minutes ago", "3 hours ago", "5 days ago"]
    assert filters.ago(datetime.now(UTC) + timedelta(hours=5)) == "in 5 hours"
    assert filters.ago(None) == "–"
    winter = datetime(2026, 1, 5, 5, 0, tzinfo=UTC)
    assert filters.moment(winter, "Europe/Berlin") == "05 Jan 2026, 06:00:00 CET"
