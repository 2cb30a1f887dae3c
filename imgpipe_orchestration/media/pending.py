"""`pending_images`: the main API's queue of uploads, in PostgreSQL, or in a MySQL or MariaDB of its own.

So all statements here are dialect-neutral.
"""

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    ColumnElement,
    Connection,
    DateTime,
    MetaData,
    String,
    Table,
    and_,
    bindparam,
    case,
    delete,
    func,
    insert,
    literal_column,
    select,
    text,
    update,
)

from imgpipe_orchestration.errors import NotFound
from imgpipe_orchestration.media.model import PendingStatus, media_id_in
from imgpipe_orchestration.settings import first_day
from imgpipe_orchestration.storage.rows import transaction, translated
from imgpipe_orchestration.wiring.services import Services

TIME_IS_READABLE = "created_at between '0001-01-02' and '9999-12-30'"
"""SQL that is false for times that another program may insert but Python cannot represent: 'infinity', years past 9999
or before 1, and MySQL's zero date."""

t = Table(
    "pending_images",
    MetaData(),
    Column("id", BigInteger, primary_key=True),
    Column("user_id", BigInteger, nullable=False),
    Column("image_path", String(255), nullable=False),
    Column("original_name", String(255)),
    Column("mime_type", String(100)),
    Column("permanent_url", String(500)),
    Column("thumbnail_url", String(500)),
    Column("status", String(16), nullable=False, server_default="pending"),
    Column("created_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Column("updated_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
)

PAGE_SIZE = 1000
"""Rows read at a time."""


@dataclass(frozen=True, slots=True)
class PendingImage:
    """One row of `pending_images`."""

    id: int
    user_id: int
    image_path: str
    original_name: str | None
    mime_type: str | None
    permanent_url: str | None
    status: PendingStatus
    created_at: datetime

    @property
    def media_id(self) -> str | None:
        """The media id it was processed as; also None where somebody set the state by hand without an id."""
        return media_id_in(self.permanent_url)

    @property
    def day(self) -> str:
        """The day of upload (UTC), `YYYY-MM-DD`: the Dagster partition. The main API may have rows older than the first
        day that is one; they count to that one."""
        today = datetime.now(UTC).date().isoformat()
        return min(max(self.created_at.date().isoformat(), first_day()), today)


_READABLE = case((literal_column(TIME_IS_READABLE), t.c.created_at))
_COLUMNS = [_READABLE if name == "created_at" else t.c[name] for name in PendingImage.__slots__]
_STATES = frozenset(PendingStatus)


def _image(row: Sequence[Any]) -> PendingImage:
    id_, user_id, path, name, mime, url, status, created_at = row
    if not isinstance(created_at, datetime):  # NULL, which the specification's DDL allows, or unreadable
        created_at = datetime.now(UTC)
    # MySQL's TIMESTAMP has no time zone; our sessions use UTC.
    created_at = created_at.astimezone(UTC) if created_at.tzinfo else created_at.replace(tzinfo=UTC)
    # The status may be NULL, as the DDL allows, or '', which MySQL writes for unknown values; neither is processed.
    known = PendingStatus(status) if status in _STATES else PendingStatus.FAILED
    return PendingImage(id_, user_id, path, name, mime, url, known, created_at)


def add(connection: Connection, *, user_id: int, image_path: str, original_name: str, mime_type: str) -> int:
    """Insert a row in state `pending`; returns its id."""
    values = {"user_id": user_id, "image_path": image_path, "original_name": original_name, "mime_type": mime_type}
    result = connection.execute(insert(t).values(**values, status=PendingStatus.PENDING.value))
    assert result.inserted_primary_key is not None  # noqa: S101 - a one-row insert always has one
    return int(result.inserted_primary_key[0])


def get(connection: Connection, image_id: int, *, lock: bool = False) -> PendingImage:
    """One row; with `lock` it stays locked until the transaction ends.

    Raises:
        NotFound: no such row.
    """
    query = select(*_COLUMNS).where(t.c.id == image_id)
    row = connection.execute(query.with_for_update() if lock else query).one_or_none()
    if row is None:
        raise NotFound(f"There is no pending image {image_id}.")
    return _image(row)


def find(connection: Connection, *which: ColumnElement[bool], limit: int | None = None) -> list[PendingImage]:
    """Rows in the order of their ids."""
    query = select(*_COLUMNS).where(*which).order_by(t.c.id)
    return [_image(row) for row in connection.execute(query.limit(limit) if limit else query)]


def reported_ids(connection: Connection, uploads: Collection[int]) -> set[str]:
    """The media ids reported for these uploads and for no other of their users: a worker may give equal files one."""
    images = find(connection, t.c.id.in_(uploads), t.c.permanent_url.is_not(None))
    urls = {image.permanent_url for image in images}
    others = find(connection, t.c.permanent_url.in_(urls), t.c.id.not_in(uploads))
    kept = {(image.user_id, image.media_id) for image in others}
    return {image.media_id for image in images if image.media_id and (image.user_id, image.media_id) not in kept}


def remove(connection: Connection, which: ColumnElement[bool]) -> int:
    """Delete rows; returns how many."""
    return connection.execute(delete(t).where(which)).rowcount


def last_id(connection: Connection) -> int:
    """The highest id; 0 where there is no row."""
    return connection.scalar(select(func.max(t.c.id))) or 0


def in_state(status: PendingStatus) -> ColumnElement[bool]:
    """Which uploads are in a state. Those in one that we do not know, which are read as failed, are in none."""
    return t.c.status == status.value


def waiting(deleted: Collection[int]) -> ColumnElement[bool]:
    """Which uploads wait: the pending ones that were not `deleted`."""
    # Written into the statement: PostgreSQL takes only 65,535 parameters.
    ids = bindparam("deleted", list(deleted), BigInteger, expanding=True, literal_execute=True)
    return and_(in_state(PendingStatus.PENDING), t.c.id.not_in(ids))


def count(connection: Connection, *which: ColumnElement[bool]) -> int:
    """How many rows there are."""
    return connection.execute(select(func.count()).where(*which)).scalar_one()


def pages(services: Services, *which: ColumnElement[bool], after: int = 0) -> Iterator[list[PendingImage]]:
    """All rows for which the conditions hold, PAGE_SIZE at a time; each page is read when it is needed."""
    while True:
        with transaction(services.pending_engine) as connection:
            page = find(connection, *which, t.c.id > after, limit=PAGE_SIZE)
        if not page:
            return
        yield page
        after = page[-1].id


def figures(connection: Connection, deleted: Sequence[int]) -> dict[str, Any]:
    """The specification's monitoring figures, by its own queries: rows by state, since when the oldest waits
    (`oldest_pending`), and how many have waited for over an hour (`stuck`). Those that were `deleted` wait no more.
    """
    rows = connection.execute(text("select status, count(*) from pending_images group by status")).all()
    counted: dict[str, Any] = {status.value: 0 for status in PendingStatus}
    for status, number in rows:
        name = status or "unknown"  # NULL, or MySQL's '' for an unknown value
        counted[name] = counted.get(name, 0) + number
    waits = waiting(deleted)
    oldest = connection.scalar(select(func.min(t.c.created_at)).where(waits, literal_column(TIME_IS_READABLE)))
    stuck = count(connection, waits, literal_column("created_at < current_timestamp - interval '1' hour"))
    return counted | {"oldest_pending": oldest, "stuck": stuck}


def mark(
    connection: Connection, ids: Sequence[int], status: PendingStatus, *which: ColumnElement[bool], **values: str
) -> None:
    """Set the state (and other columns) of some rows, of those for which the conditions hold."""
    query = update(t).where(t.c.id.in_(ids), *which)
    connection.execute(query.values(status=status.value, updated_at=func.now(), **values))


@contextmanager
def both(services: Services) -> Iterator[tuple[Connection, Connection]]:
    """A transaction on our own database, and the connection for writing to `pending_images` within it, as `joined`.

    Another database is connected to first: one that does not answer must not hold our own one's connections.
    """
    if services.pending_engine is services.engine:
        with transaction(services.engine) as connection:
            yield connection, connection
        return
    foreign = services.pending_engine
    with (
        translated(foreign),
        foreign.connect() as other,
        transaction(services.engine) as connection,
        translated(foreign),
        other.begin(),
    ):
        yield connection, other


@contextmanager
def joined(services: Services, connection: Connection) -> Iterator[Connection]:
    """The connection for writing to `pending_images` within a transaction on our own database.

    It is the same transaction if the table is in that database, else another one, which commits first.
    """
    if services.pending_engine is services.engine:
        yield connection
    else:
        with transaction(services.pending_engine) as other:
            yield other
