"""What a cron job may be given: addresses, and cron expressions of five fields with a time zone. And its next tick.

As in Vixie cron, a day of the month and a weekday that are both given are alternatives, unless one of the fields begins
with `*`: then both must hold. So `0 9 */2 * 1` is Mondays with an odd number.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from imgpipe_orchestration.errors import BadInput
from imgpipe_orchestration.partners.fetch import check_url

_FIELDS = {"minute": 60, "hour": 24, "day-of-month": 31, "month": 12, "day-of-week": 7}
"""The fields, each with the number of its values."""
_NO_PLACE = re.compile(r"(posix|right)/|(localtime|posixrules|Factory)$")
"""Names in the zone database that are no time zones: copies with leap seconds (`right/`), which make ticks wrong, and
the machine's own settings."""
_RANDOM = re.compile(r"\b[HR]\b", re.IGNORECASE)


def check_schedule(expression: str) -> str:
    """The expression with single spaces.

    Raises:
        BadInput: not five fields, a value out of range, a step that is larger than its field, or a day that never
            comes (30 February).
    """
    from croniter import CroniterBadCronError, croniter

    fields = expression.split()
    if len(fields) != 5:
        raise BadInput(
            f"schedule must have the five fields `{' '.join(_FIELDS)}`, e.g. `*/30 * * * *`; got {len(fields)}",
            field="schedule",
        )
    tidy = " ".join(fields)
    if _RANDOM.search(tidy):
        raise BadInput(f"schedule {tidy!r}: H and R (hashed and random times) are not supported", field="schedule")
    try:
        croniter(tidy)
    except (CroniterBadCronError, ValueError, KeyError) as error:
        raise BadInput(f"schedule {tidy!r} is not a cron expression: {error}", field="schedule") from error
    for (name, size), field in zip(_FIELDS.items(), fields, strict=True):
        if any(int(step) > size for step in re.findall(r"/([0-9]+)", field)):
            told = f"schedule {tidy!r}: the step in {field!r} is larger than the field: {name} has {size} values"
            raise BadInput(told, field="schedule")
    next_tick(tidy, "UTC", datetime.now(UTC))
    return tidy


def check_timezone(name: str) -> str:
    """The name, if it is one of the IANA time zones.

    Raises:
        BadInput: it is not.
    """
    try:
        if _NO_PLACE.match(name):
            raise ValueError(name)
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise BadInput(f"timezone {name!r} is not known; use a name such as Europe/Berlin", field="timezone") from error
    return name


def next_tick(schedule: str, timezone: str, after: datetime) -> datetime:
    """The first tick strictly after `after`, in UTC.

    Only this one is planned: of all ticks missed while the system was down, one is made up for.

    Raises:
        BadInput: the schedule has no tick within the next years, or the schedule or the time zone is invalid.
    """
    from croniter import CroniterBadCronError, CroniterBadDateError, croniter

    zone = ZoneInfo(check_timezone(timezone))
    try:
        ticks = croniter(schedule, after.astimezone(zone), implement_cron_bug=True)
        tick: datetime = ticks.get_next(datetime)
        # When clocks go back, an hour happens twice: "at 02:30" means the first one, "every 30 minutes" both.
        while tick.astimezone(UTC).astimezone(zone).fold and "*" not in schedule.split()[1]:
            tick = ticks.get_next(datetime)
    except CroniterBadDateError as error:
        raise BadInput(f"schedule {schedule!r} names a moment that never comes", field="schedule") from error
    except CroniterBadCronError as error:
        raise BadInput(f"schedule {schedule!r} is not a cron expression: {error}", field="schedule") from error
    return tick.astimezone(UTC)


def check_address(field: str, url: str, *, production: bool) -> None:
    """
    Raises:
        BadInput: it is no plain http(s) address; or in production the external API's is not https, as the customer's
            token is sent with every call.
    """
    try:
        check_url(url)
    except BadInput as error:
        told = f"{field} must be an http or https address without a user name in it"
        raise BadInput(told, field=field, detail=error.public) from error
    if production and field.startswith("external_api_") and urlsplit(url).scheme != "https":
        raise BadInput(f"{field} must be an https address in production", field=field)
