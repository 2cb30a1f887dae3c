"""Cron expressions in time zones."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from imgpipe_orchestration.errors import BadInput
from imgpipe_orchestration.vision_reports.cron_jobs import check_schedule, check_timezone, next_tick

EXAMPLES = ["0 * * * *", "0 2 * * *", "*/30 * * * *", "0 0,6,12,18 * * *", "0 9 * * 1"]
"""The documents' own."""
RISING = ["1-5 8-18/2 1-7,9-31 jan-mar 5-7"]
WHOLE_FIELDS = ["*/60 * * * *", "0 */24 * * *", "0 0 */31 * *", "0 0 1 */12 *", "0 0 * * */7"]


@pytest.mark.parametrize("schedule", EXAMPLES + RISING + WHOLE_FIELDS)
def test_a_schedule_of_five_fields_is_taken(schedule: str) -> None:
    assert check_schedule(f"  {schedule} ") == schedule


NONE = ["", "@hourly", "* * * *", "* * * * * *", "61 * * * *", "a b c d e", "0 0 30 2 *", "*/0 * * * *", "H * * * *"]


@pytest.mark.parametrize(
    ("schedule", "reason"),
    [
        *((schedule, ".") for schedule in NONE),
        ("*/61 * * * *", "minute has 60 values"),
        ("0 8-18/25 * * *", "hour has 24 values"),
        ("1 1 */32,1-7 * 2", "day-of-month has 31 values"),
        ("0 0 1 */13 *", "month has 12 values"),
        ("0 0 * * */8", "day-of-week has 7 values"),
        ("5-1 * * * *", "minute '5-1' does not rise"),
        ("5-5/10 * * * *", "minute '5-5/10' does not rise"),
        ("0 1-4,22-2 * * *", "hour '1-4,22-2' does not rise"),
        ("0 0 * * Mon-1", "'Mon-1' does not rise"),
        ("5-05 * * * *", "minute '5-05' does not rise"),
    ],
)
def test_what_is_no_five_field_schedule_is_refused_with_its_reason(schedule: str, reason: str) -> None:
    with pytest.raises(BadInput, match=reason) as refused:
        check_schedule(schedule)
    assert refused.value.field == "schedule"


@pytest.mark.parametrize("name", ["Mars/Olympus", "", "../etc/passwd", "/etc/localtime", "localtime", "right/UTC"])
def test_an_unknown_time_zone_is_refused(name: str) -> None:
    with pytest.raises(BadInput):
        check_timezone(name)


def test_a_schedule_is_meant_in_its_time_zone() -> None:
    after = datetime(2026, 1, 5, 12, tzinfo=UTC)
    assert next_tick("0 9 * * *", "America/New_York", after) == datetime(2026, 1, 5, 14, tzinfo=UTC)
    assert next_tick("0 9 * * *", "UTC", after) == datetime(2026, 1, 6, 9, tzinfo=UTC)


def test_a_daily_tick_happens_once_on_the_night_that_has_its_hour_twice() -> None:
    first = next_tick("30 2 * * *", "Europe/Berlin", datetime(2026, 10, 24, 12, tzinfo=UTC))
    assert first == datetime(2026, 10, 25, 0, 30, tzinfo=UTC)
    assert next_tick("30 2 * * *", "Europe/Berlin", first) == datetime(2026, 10, 26, 1, 30, tzinfo=UTC)


def test_a_daily_tick_is_not_lost_on_the_night_that_lacks_its_hour() -> None:
    tick = next_tick("30 2 * * *", "Europe/Berlin", datetime(2026, 3, 28, 12, tzinfo=UTC))
    assert datetime(2026, 3, 29, 0, 30, tzinfo=UTC) <= tick <= datetime(2026, 3, 29, 1, 30, tzinfo=UTC)


@pytest.mark.parametrize(("schedule", "half_hours"), [("*/30 * * * *", 4), ("*/30 0-23 * * *", 2)])
def test_the_hour_that_happens_twice_counts_twice_where_the_hour_field_has_a_star(
    schedule: str, half_hours: int
) -> None:
    tick, ticks = datetime(2026, 10, 24, 23, 59, tzinfo=UTC), 0
    while (tick := next_tick(schedule, "Europe/Berlin", tick)) < datetime(2026, 10, 25, 2, tzinfo=UTC):
        ticks += 1
    assert ticks == half_hours


@pytest.mark.parametrize(
    ("schedule", "holds"),
    [
        ("1 1 */2 * 2", lambda day: day.day % 2 == 1 and day.isoweekday() == 2),
        ("1 1 */31,1-7 * 2", lambda day: day.day <= 7 and day.isoweekday() == 2),
        ("1 1 1-7 * */3", lambda day: day.day <= 7 and day.isoweekday() in {3, 6, 7}),
        ("1 1 * * 2", lambda day: day.isoweekday() == 2),
        ("1 1 1,15 * 2", lambda day: day.day in {1, 15} or day.isoweekday() == 2),
        ("1 1 */10 * *", lambda day: day.day in {1, 11, 21, 31}),
    ],
)
def test_day_of_month_and_weekday_go_together_as_in_vixie_cron(
    schedule: str, holds: Callable[[datetime], bool]
) -> None:
    assert check_schedule(schedule) == schedule
    tick = datetime(2026, 1, 1, tzinfo=UTC)
    for day in (datetime(2026, 1, 1, 1, 1, tzinfo=UTC) + timedelta(days=n) for n in range(90)):
        if holds(day):
            tick = next_tick(schedule, "UTC", tick)
            assert tick == day
