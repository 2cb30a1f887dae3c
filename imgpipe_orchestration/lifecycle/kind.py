"""What a feature declares about the things it owns that can be deleted, and what is done with all kinds alike."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Row, RowMapping, TextClause, text

from imgpipe_orchestration.settings import Settings
from imgpipe_orchestration.storage import deletions
from imgpipe_orchestration.storage.claims import Claims, Item, Queue
from imgpipe_orchestration.storage.deletions import DELETED, Deletion, Thing
from imgpipe_orchestration.storage.holdings import Holding, Promise
from imgpipe_orchestration.storage.objects import Bucket
from imgpipe_orchestration.storage.rows import transaction
from imgpipe_orchestration.wiring.services import Services

Rows = Sequence[Row[Any]]


@dataclass(frozen=True)
class Exported:
    """What a person gets of one thing: a record for `images.json`, and the original's name in the ZIP and its key."""

    record: dict[str, Any]
    name: str
    key: str


@dataclass(frozen=True)
class Aging:
    """Things are old enough so many days after `since`, an expression of SQL, where `condition` holds for a row `t`."""

    days: Callable[[Settings], float | None]
    """None where they do not age."""
    since: str
    condition: str = "true"


@dataclass(frozen=True)
class Kind:
    """One kind of things. Ids are those of its rows."""

    name: str
    pipeline: str
    """The pipeline that it belongs to, also of its paid calls, whose items begin with `what`."""
    bucket: Callable[[Services], Bucket]
    rows: TextClause
    """Selects of each of `ids` the `id`, `user_id`, `what` (its name in the ledger and among the deletions),
    `addresses` (paths of its URLs), `keys` and `prefixes` of all its objects, `bought` (names in the ledger), `day`
    (its partition), and the columns that `queues` and `judged` name."""
    tables: Mapping[str, str]
    """Its table first, and tables whose rows must be gone with it; and the column with the id, for the sweep."""
    queues: Mapping[Queue, str]
    """Its queues, and the column of `rows` with the item, or the items. Their tenants are users where the kind belongs
    to users."""
    judged: Mapping[str, tuple[str, int]]
    """The subjects of moderation that it is: the column of `rows` with their ids, and the bits by which the number of a
    part is longer."""
    stopped: Callable[[Connection, Rows], object] = lambda _, __: None
    """What else happens when things are taken out of their queues."""
    erased: Callable[[Services, Connection, Rows], object] = lambda _, __, ___: None
    """Removes what else there is about things, before their rows go. Their objects are gone by then."""
    strays: Callable[[Services], Sequence[Path]] = lambda _: ()
    """Files on this machine that belong to things that are gone."""
    undated: Collection[Queue] = ()
    """Those of its queues whose items belong to no partition."""
    resumed: Callable[[Connection, Sequence[Deletion]], None] | None = None
    """What else happens to restored things; None where nothing of the kind is restored."""
    ready: str = ""
    """The condition on which a restored thing is shown, unless it is held."""
    item_of: str = ""
    """Regular expression (PostgreSQL's and Python's) of the id in an object's key, for the sweep."""
    live: str = ""
    """The view of things that are not in the trash, where they belong to users (`user_id`)."""
    adopt: Callable[[Services, int, bool], None] = lambda _, __, ___: None
    """Makes things of what a user has sent and no worker has looked at yet; if asked to, only of what waits for one."""
    prefixes_of: Callable[[int], Sequence[str]] = lambda _: ()
    """Where all objects belong to one user."""
    exported: Callable[[Connection, RowMapping], Exported] | None = None
    """What a person gets of a row of its table."""
    folder: str = ""
    """Where the export has the originals."""
    expired: Aging | None = None
    """What retention purges."""
    superseded: Aging | None = None
    """What something newer has replaced for long enough, for the trash."""
    tag: str = ""
    """The beginning of its tags in a CDN, before the id; empty where no answer has one."""
    kept: Callable[[Services], Holding] | None = None
    """Its bucket for the garbage collection, where it has one of its own."""
    remake: Queue | None = None
    """The queue in which its missing objects are made again; None where they cannot be."""
    tidy: Callable[[Services, float], Mapping[str, int]] = field(default=lambda _, __: {})
    """Removes history that is so many days old; rows by their kind."""
    forget_user: Callable[[Services, Connection, int], int] | None = None
    """Removes what is kept of a person beside things; returns how many rows."""

    @property
    def table(self) -> str:
        return next(iter(self.tables))

    def of_user(self, connection: Connection, user_id: int, limit: int) -> list[int]:
        """The first ids of a user's things that are not in the trash."""
        if not self.live:
            return []
        query = text(f"select id from {self.live} where user_id = :user order by id limit :limit")
        return list(connection.scalars(query, {"user": user_id, "limit": limit}))

    def find(self, connection: Connection, ids: Sequence[int]) -> Rows:
        """The rows of some ids, locked. What is not there any more is left out."""
        locked = text(f"select from {self.table} where id = any(cast(:ids as bigint[])) order by id for update")
        connection.execute(locked, {"ids": list(ids)})
        return connection.execute(self.rows, {"ids": list(ids)}).all()

    def due(self, connection: Connection, aging: Aging, settings: Settings) -> list[int]:
        """The first ids that are old enough. What expires does so in the trash, too."""
        days = aging.days(settings)
        if days is None:
            return []
        query = text(f"""
            select id from {self.table} t where {aging.since} <= now() - make_interval(secs => :days * 86400)
            and {aging.condition}
            and not exists (select from deletions d where d.kind = :kind and d.item = t.id
                and not (:expires and d.purge_after > now())) order by id limit 500
        """)
        return list(connection.scalars(query, {"days": days, "kind": self.name, "expires": aging is self.expired}))

    def stop(self, connection: Connection, ids: Sequence[int]) -> list[Thing]:
        """Lock the rows of some ids and take them out of the queues; returns those that exist."""
        seen = connection.execute(self.rows, {"ids": list(ids)}).all()
        deletions.lock(connection, [row.what for row in seen])  # before all else, as what restores things does
        named = [(queue.name, item) for queue, column in self.queues.items() for item in _items(seen, column)]
        # Before the rows, as workers do, who write a row while they hold the lock on its item.
        connection.execute(_LOCK_ITEMS, {"queues": [queue for queue, _ in named], "items": [item for _, item in named]})
        rows = self.find(connection, ids)
        places: dict[int, set[str]] = {row.id: set() for row in rows}
        for queue, column in self.queues.items():
            owners = _items(rows, column)
            for item in Claims.withdraw(connection, queue, list(owners), DELETED, failed=True):
                places[owners[item]].add(queue.name)
        self.stopped(connection, rows)
        return [Thing(row.what, row.id, row.user_id, row.addresses, sorted(places[row.id])) for row in rows]

    def resume(self, connection: Connection, restored: Sequence[Deletion]) -> None:
        """Put restored things back into their queues."""
        if self.resumed is None:
            return
        self.resumed(connection, restored)
        queues = {one.item: one.queues for one in restored}
        rows = self.find(connection, list(queues))
        for queue, column in self.queues.items():
            these = [row for row in rows if queue.name in queues[row.id]]
            Claims.enqueue(connection, queue, _queued(these, column, dated=queue not in self.undated), again=True)
        for subject, (column, parts) in self.judged.items():
            deletions.hasten_verdicts(connection, subject, list(_items(rows, column)), parts=parts)

    def states(self, connection: Connection, ids: Sequence[int]) -> list[str]:
        """What restored things are: `held`, `ready`, or the states of their rows."""
        query = f"case when held then 'held' when {self.ready} then 'ready' else cast(status as text) end"
        return list(connection.scalars(text(f"select {query} from {self.table} where id = any(:ids)"), {"ids": ids}))

    def erase(self, services: Services, connection: Connection, ids: Sequence[int]) -> None:
        """Remove the rows, the paid answers, the verdicts and what the queues know."""
        rows = self.find(connection, ids)
        for subject, (column, parts) in self.judged.items():
            deletions.forget_verdicts(connection, subject, list(_items(rows, column)), parts=parts)
        deletions.forget_answers(connection, self.pipeline, [name for row in rows for name in row.bought])
        for queue, column in self.queues.items():
            deletions.forget_work(connection, [queue.name], list(_items(rows, column)))
        self.erased(services, connection, rows)
        connection.execute(text(f"delete from {self.table} where id = any(:ids)"), {"ids": list(ids)})

    def holding(self, services: Services) -> Holding:
        """Its bucket for the garbage collection."""
        assert self.kept is not None  # noqa: S101 - as its caller made sure
        return replace(self.kept(services), repair=partial(self._make_again, services) if self.remake else None)

    def _make_again(self, services: Services, missing: Sequence[Promise]) -> int:
        assert self.remake is not None  # noqa: S101 - as `holding` made sure
        query = text(f"select id from {self.live} where id = any(cast(:ids as bigint[])) and {self.ready}")
        with transaction(services.engine) as connection:
            ids = connection.scalars(query, {"ids": sorted({promise.row for promise in missing})})
            rows = self.find(connection, list(ids))
            services.claims.enqueue(connection, self.remake, _queued(rows, "id"), again=True)
        return len(rows)  # also those that were queued already


_LOCK_ITEMS = text("""
    select from work_items where (queue, item_id) in (
        select * from unnest(cast(:queues as text[]), cast(:items as bigint[]))) order by queue, item_id for update
""")


def _items(rows: Rows, column: str) -> dict[int, int]:
    """The items of some rows, and whose they are."""
    found: dict[int, int] = {}
    for row in rows:
        value = getattr(row, column)
        found |= dict.fromkeys(value if isinstance(value, list) else [value], row.id)
    return found


def _queued(rows: Rows, column: str, *, dated: bool = True) -> list[Item]:
    """The items of some rows for a queue."""
    return [
        Item(getattr(row, column), "" if row.user_id is None else str(row.user_id), row.day if dated else "")
        for row in rows
    ]
