"""The audit: one row for each change by a person or a key, which nothing changes afterwards.

A request that may change something begins an `Entry`. The first transaction of the request that writes anything writes
the row too, so there is no change without a row and no row without a change; a table that cannot be written refuses the
change. A request that changes nothing, such as a delete that is sent twice, leaves no row.

The table is partitioned by month. A trigger refuses UPDATE, DELETE and TRUNCATE; old months are dropped whole.
"""

import getpass
import json
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import ProgrammingError

from imgpipe_orchestration.errors import BackendUnavailable
from imgpipe_orchestration.identity.model import Caller, Kind, Role
from imgpipe_orchestration.storage.jsonb import storable
from imgpipe_orchestration.storage.rows import before_commit, transaction

MOST_LETTERS = 2_000
"""Of what is kept of a value before and after."""


@dataclass(slots=True)
class Entry:
    """The row that a request is going to leave. A request without a `caller` leaves none."""

    engine: Engine
    caller: Caller | None = None
    address: str = ""
    action: str = ""
    subject: str = ""
    before: Mapping[str, Any] | None = None
    after: Mapping[str, Any] | None = None
    written: bool = False

    def write_with(self, connection: Connection) -> None:
        """Write the row, if this transaction of our own database has written anything.

        Raises:
            BackendUnavailable: the row cannot be written, so the change must not be made.
        """
        if self.caller is None or not self.action or self.written or connection.engine is not self.engine:
            return
        _insert(connection, self, always=False)


@contextmanager
def begun(entry: Entry) -> Iterator[Entry]:
    """The changes made within the block are those of `entry`."""
    token = before_commit.set(entry.write_with)
    try:
        yield entry
    finally:
        before_commit.reset(token)


def by_command(engine: Engine, action: str, subject: str = "") -> AbstractContextManager[Entry]:
    """The changes made within the block are those of a command that somebody on this machine types."""
    try:
        who = getpass.getuser()
    except (KeyError, OSError):  # a container may run as a user without a name
        who = "unknown"
    return begun(Entry(engine, Caller(who, Kind.COMMAND, Role.ADMIN), action=action, subject=subject))


def note(
    *,
    before: Mapping[str, Any] | None = None,
    after: Mapping[str, Any] | None = None,
    subject: str = "",
    action: str = "",
) -> None:
    """Say in the request's row what was before the change and what is after it. No secrets."""
    if (entry := _of_this_request()) is not None:
        entry.before, entry.after = before, after
        entry.subject, entry.action = subject or entry.subject, action or entry.action


def record(entry: Entry) -> None:
    """Write a row for something that writes nothing else, such as a sign-in.

    Raises:
        BackendUnavailable: the row cannot be written.
    """
    with transaction(entry.engine) as connection:
        _insert(connection, entry, always=True)


def record_change_elsewhere() -> None:
    """Write the request's row now, before a change in another store: such a change cannot share the transaction.

    Raises:
        BackendUnavailable: the row cannot be written, so the change must not be made.
    """
    entry = _of_this_request()
    if entry is not None and entry.caller is not None and not entry.written:
        record(entry)


def page(
    engine: Engine,
    *,
    limit: int,
    before: int | None = None,
    who: str = "",
    action: str = "",
    subject: str = "",
    since: datetime | None = None,
    until: datetime | None = None,
) -> list[dict[str, Any]]:
    """Rows, the newest first.

    Args:
        before: the id of the last row of the page before.
        who, action, subject: rows that contain these words.
    """
    words = {"who": who, "action": action, "subject": subject}
    values = {**words, "before": before, "since": since, "until": until, "limit": limit}
    with transaction(engine) as connection:
        rows = connection.execute(_PAGE, values).mappings()
        return [{**row, "at": row["at"].astimezone(UTC).isoformat()} for row in rows]


def keep_months(engine: Engine, days: int) -> int:
    """Make the months that come, and drop those that are older than `days`; returns how many were dropped."""
    with transaction(engine) as connection:
        connection.execute(_MONTHS)
        old = connection.scalars(_OLD, {"days": days}).all()
        for name in old:
            connection.execute(text(f'drop table "{name}"'))
    return len(old)


def _of_this_request() -> Entry | None:
    entry = getattr(before_commit.get(), "__self__", None)
    return entry if isinstance(entry, Entry) else None


def _insert(connection: Connection, entry: Entry, *, always: bool) -> None:
    """Write the row, unless the transaction has changed nothing and it is not `always` wanted.

    Once a month and process this looks first whether the partitions of this month and the next are there. It makes
    them in a transaction of its own: a new one waits for all that write.
    """
    caller = entry.caller
    assert caller is not None  # noqa: S101 - callers of this function look first
    values = {
        "who": caller.name,
        "role": caller.role.value if caller.role else None,
        "kind": caller.kind.value,
        "address": entry.address,
        "action": entry.action,
        "subject": entry.subject[:500],
        "before": _short(entry.before),
        "after": _short(entry.after),
        "always": always,
    }
    month = (str(entry.engine.url), datetime.now(UTC).strftime("%Y-%m"))
    try:
        if month not in _ready and connection.scalar(_MONTH_LACKS):
            with entry.engine.begin() as other:
                other.execute(_MONTHS)
        entry.written = connection.execute(_INSERT, values).rowcount > 0
    except ProgrammingError as error:
        words = "The change was not made, because the audit could not be written. The log says why."
        raise BackendUnavailable(words, detail=str(error.orig)) from error
    _ready.add(month)


_ready: set[tuple[str, str]] = set()
"""Databases and months whose partitions this process has seen."""


def _short(value: Mapping[str, Any] | None) -> str | None:
    if value is None:
        return None
    written = json.dumps(storable(value), default=str)
    return written if len(written) <= MOST_LETTERS else json.dumps({"cut": written[:MOST_LETTERS]})


_MONTHS = text("select audit_month(now()), audit_month(now() + interval '1 month')")
_MONTH_LACKS = text("""
    select bool_or(to_regclass('audit_' || to_char(month, 'YYYY_MM')) is null)
    from unnest(array[now(), now() + interval '1 month']) as month
""")
# A transaction has an id once it has written or locked something.
_INSERT = text("""
    insert into audit (who, role, kind, address, action, subject, before, after)
    select :who, :role, :kind, :address, :action, :subject, cast(:before as jsonb), cast(:after as jsonb)
    where :always or pg_current_xact_id_if_assigned() is not null
""")
_PAGE = text("""
    select id, at, who, role, kind, address, action, subject, before, after from audit
    where (cast(:before as bigint) is null or id < :before)
        and position(lower(:who) in lower(who)) > 0
        and position(lower(:action) in lower(action)) > 0
        and position(lower(:subject) in lower(subject)) > 0
        and (cast(:since as timestamptz) is null or at >= :since)
        and (cast(:until as timestamptz) is null or at < :until)
    order by id desc limit :limit
""")
_OLD = text("""
    select c.relname from pg_inherits i join pg_class c on c.oid = i.inhrelid
    where i.inhparent = 'audit'::regclass
        and to_timestamp(right(c.relname, 7), 'YYYY_MM') + interval '1 month' < now() - make_interval(days => :days)
""")
