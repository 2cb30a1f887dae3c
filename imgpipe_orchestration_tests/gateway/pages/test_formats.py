"""Figures as people read them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from imgpipe_orchestration.gateway.pages import formats


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
