"""The rows of `cron_jobs`: external API, organization and schedule of each, with keys encrypted by the callers. And
what a job may be given: addresses, and cron expressions of five fields with a time zone.

As in Vixie cron, a day of the month and a weekday that are both given are alternatives, unless one of the fields begins
with `*`: then both must hold. So `0 9 */2 * 1` is Mondays with an odd number.
"""

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from sqlalchemy import Connection, Engine, Row, text

from imgpipe_orchestration.errors import BadInput, NotFound
from imgpipe_orchestration.identity import audit
from imgpipe_orchestration.partners.fetch import check_url
from imgpipe_orchestration.storage.rows import time_of, transaction
from imgpipe_orchestration.telemetry.logs import logger

COLUMNS = (
    "name",
    "schedule",
    "timezone",
    "external_api_get_url",
    "external_api_post_url",
    "external_api_key",
    "backend_api_url",
    "organization_id",
    "enabled",
    "urgent",
)
"""The columns that a request may set."""

UNPLANNED = timedelta(hours=1)
"""Time to the next run of a job whose schedule cannot be read."""

log = logger(__name__)

_FIELDS = {"minute": 60, "hour": 24, "day-of-month": 31, "month": 12, "day-of-week": 7}
"""The fields, each with the number of its values."""
_NO_PLACE = re.compile(r"(posix|right)/|(localtime|posixrules|Factory)$")
"""Names in the zone database that are not time zones: copies with leap seconds (`right/`), which make ticks wrong, and
the machine's own settings."""
_RANDOM = re.compile(r"\b[HR]\b", re.IGNORECASE)


def check_schedule(expression: str) -> str:
    """The expression with single spaces.

    Raises:
        BadInput: not five fields, a value out of range, a step that is larger than its field, a range that does not
            rise (croniter takes 5-5 as every minute), or a day that never comes (30 February).
    """
    from croniter import croniter

    fields = expression.split()
    if len(fields) != 5:
        raise BadInput(
            f"schedule must have the five fields `{' '.join(_FIELDS)}`, e.g. `*/30 * * * *`; got {len(fields)}",
            field="schedule",
        )
    tidy = " ".join(fields)
    if _RANDOM.search(tidy):
        raise BadInput(f"schedule {tidy!r}: H and R (hashed and random times) are not supported", field="schedule")
    next_tick(tidy, "UTC", datetime.now(UTC))
    numbers: dict[str, Any] = {**croniter.ALPHACONV[3], **croniter.ALPHACONV[4]}  # of months and days
    for (name, size), field in zip(_FIELDS.items(), fields, strict=True):
        if any(int(step) > size for step in re.findall(r"/([0-9]+)", field)):
            told = f"schedule {tidy!r}: the step in {field!r} is larger than the field: {name} has {size} values"
            raise BadInput(told, field="schedule")
        pairs = re.findall(r"([a-z]{3}|[0-9]+)-([a-z]{3}|[0-9]+)", field.lower())
        ends = [[int(numbers.get(end, end)) for end in pair] for pair in pairs]
        named = any(letter.isalpha() for letter in field)  # fri-mon goes on over the week's end, as people mean it
        if any(first == last or (first > last and not named) for first, last in ends):
            told = f"schedule {tidy!r}: {name} {field!r} does not rise; write one value, or two ranges: 22-23,0-2"
            raise BadInput(told, field="schedule")
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
    from croniter import CroniterBadDateError, croniter

    zone = ZoneInfo(check_timezone(timezone))
    try:
        ticks = croniter(schedule, after.astimezone(zone), implement_cron_bug=True)
        tick: datetime = ticks.get_next(datetime)
        # When clocks go back, an hour happens twice: "at 02:30" means the first one, "every 30 minutes" both.
        while tick.astimezone(UTC).astimezone(zone).fold and "*" not in schedule.split()[1]:
            tick = ticks.get_next(datetime)
    except CroniterBadDateError as error:
        raise BadInput(f"schedule {schedule!r} names a moment that never comes", field="schedule") from error
    except (ValueError, KeyError) as error:
        raise BadInput(f"schedule {schedule!r} is not a cron expression: {error}", field="schedule") from error
    return tick.astimezone(UTC)


def check_address(field: str, url: str, *, production: bool) -> None:
    """
    Raises:
        BadInput: it is not a plain http(s) address; or in production the external API's is not https, as the customer's
            token is sent with every call.
    """
    try:
        check_url(url)
    except BadInput as error:
        told = f"{field} must be an http or https address without a user name in it"
        raise BadInput(told, field=field, detail=error.public) from error
    if production and field.startswith("external_api_") and urlsplit(url).scheme != "https":
        raise BadInput(f"{field} must be an https address in production", field=field)


def create(engine: Engine, values: Mapping[str, Any]) -> Row[Any]:
    """Add a job (all of COLUMNS); an enabled one is planned."""
    names = [*COLUMNS, "next_run_at"]
    places = ", ".join(f":{name}" for name in names)
    with transaction(engine) as rows:
        row = {**values, "next_run_at": _planned(rows, values)}
        job = rows.execute(text(f"insert into cron_jobs ({', '.join(names)}) values ({places}) returning *"), row).one()
        audit.note(after=told(values), subject=str(job.job_id))
        return job


def listed(engine: Engine, *, enabled_only: bool = False) -> list[Row[Any]]:
    """All jobs, oldest first."""
    with transaction(engine) as rows:
        return list(
            rows.execute(text("select * from cron_jobs where enabled or not :only order by id"), {"only": enabled_only})
        )


def found(engine: Engine, job_id: UUID) -> Row[Any]:
    """One job.

    Raises:
        NotFound: there is none of this id.
    """
    with transaction(engine) as rows:
        return find(rows, job_id)


def change(engine: Engine, job_id: UUID, values: Mapping[str, Any]) -> Row[Any]:
    """Set some of COLUMNS. The next tick is planned again only if schedule, time zone or `enabled` changed.

    Raises:
        NotFound: there is none of this id.
    """
    with transaction(engine) as rows:
        job = find(rows, job_id, lock=True)
        new = {name: values.get(name, getattr(job, name)) for name in COLUMNS}
        replan = any(new[name] != getattr(job, name) for name in ("schedule", "timezone", "enabled"))
        new |= {"next_run_at": _planned(rows, new) if replan else job.next_run_at, "id": job.id}
        changed = [name for name in COLUMNS if new[name] != getattr(job, name)]
        audit.note(
            before=told({name: getattr(job, name) for name in changed}),
            after=told({name: new[name] for name in changed}),
        )
        sets = ", ".join(f"{name} = :{name}" for name in (*COLUMNS, "next_run_at"))
        return rows.execute(text(f"update cron_jobs set {sets} where id = :id returning *"), new).one()


def told(values: Mapping[str, Any]) -> dict[str, Any]:
    """What the audit keeps of a job's columns: not the tenant's key, nor addresses that may hold one."""
    hidden = ("key", "token", "url")
    return {name: "hidden" if any(word in name for word in hidden) else value for name, value in values.items()}


def find(rows: Connection, job_id: UUID, *, lock: bool = False) -> Row[Any]:
    """One job, which `lock` locks until the transaction ends.

    Raises:
        NotFound: there is none of this id.
    """
    query = "select * from cron_jobs where job_id = :id" + " for update" * lock
    row = rows.execute(text(query), {"id": job_id}).one_or_none()
    if row is None:
        raise NotFound(f"No cron job {job_id}")
    return row


def any_due(rows: Connection) -> bool:
    """Whether some job's tick has come, or it is to be planned anew."""
    return bool(rows.scalar(text(f"select exists (select from cron_jobs where {_IS_DUE})")))


def take_due(rows: Connection) -> list[Row[Any]]:
    """The jobs whose tick has come, each planned for its next one. The caller starts their executions in the same
    transaction, so that a tick is neither lost nor taken twice.

    By the database's clock, as in `any_due`: with a machine's own clock, which may be late, a run could be started for
    a tick and not find it due."""
    now = time_of(rows)
    due = rows.execute(text(f"select * from cron_jobs where {_IS_DUE} order by id for update skip locked")).all()
    for job in due:
        rows.execute(
            text("update cron_jobs set next_run_at = :next where id = :id"),
            {"next": _next(job, now), "id": job.id},
        )
    return [job for job in due if job.next_run_at <= now]


# The second condition catches jobs that were planned while the database's clock ran ahead.
_IS_DUE = "next_run_at is not null and (next_run_at <= now() or updated_at > now() + interval '1 minute')"


def _next(job: Row[Any], now: datetime) -> datetime:
    """The job's next tick. An unreadable schedule must not raise, which would stop all other jobs: this machine may
    lack the time zone, and the row may have been changed by hand."""
    try:
        return next_tick(job.schedule, job.timezone, now)
    except BadInput as error:
        log.error("cron job not planned", extra={"job": str(job.job_id), "error": error.public})
        return now + UNPLANNED


def _planned(rows: Connection, values: Mapping[str, Any]) -> datetime | None:
    if not values["enabled"]:
        return None
    return next_tick(values["schedule"], values["timezone"], time_of(rows))
