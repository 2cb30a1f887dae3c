"""What a feature declares about the things it owns that can be deleted."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, RowMapping, TextClause, text

from imgpipe_orchestration.services import Services
from imgpipe_orchestration.settings import Settings
from imgpipe_orchestration.storage.deletions import Deletion, Thing
from imgpipe_orchestration.storage.holdings import Holding
from imgpipe_orchestration.storage.objects import Bucket


@dataclass(frozen=True)
class Objects:
    """The objects of one thing: their keys, and prefixes whose objects are all its own."""

    keys: Sequence[str] = ()
    prefixes: Sequence[str] = ()


@dataclass(frozen=True)
class Exported:
    """What a person gets of one thing: a record for `images.json`, and the original's name in the ZIP and its key."""

    record: dict[str, Any]
    name: str
    key: str


@dataclass(frozen=True)
class Aging:
    """Things that are old enough: `query` selects the ids of the first ones, and takes the parameter `days`."""

    days: Callable[[Settings], float | None]
    """None where they do not age."""
    query: TextClause

    def due(self, settings: Settings, connection: Connection) -> list[int]:
        """The first ids that are old enough."""
        days = self.days(settings)
        return [] if days is None else list(connection.scalars(self.query, {"days": days}))


@dataclass(frozen=True)
class Kind:
    """One kind of things. Ids are those of its rows."""

    name: str
    pipeline: str
    """The pipeline that it belongs to, also of its paid calls, whose items begin with `what`."""
    bucket: Callable[[Services], Bucket]
    stop: Callable[[Services, Connection, Sequence[int]], list[Thing]]
    """Locks the rows of some ids and takes them out of the queues; returns those that exist."""
    objects: Callable[[Connection, Sequence[int]], dict[int, Objects]]
    """All objects of some ids. What is not there any more is left out."""
    erase: Callable[[Services, Connection, Sequence[int]], None]
    """Removes the rows, the paid answers and what the queues know. Their objects are gone by then."""
    tables: Mapping[str, str]
    """Tables whose rows must be gone after a purge, and the column with the id, for the sweep."""
    item_of: str = ""
    """Regular expression (PostgreSQL's and Python's) of the id in an object's key, for the sweep."""
    queues: Sequence[str] = ()
    """Its queues, whose tenants are users where the kind belongs to users."""
    resume: Callable[[Services, Connection, Deletion], None] | None = None
    """Puts a restored thing back into its queues; None where nothing of the kind is restored."""
    live: str = ""
    """The view of things that are not in the trash, where they belong to users (`user_id`)."""
    adopt: Callable[[Services, int], None] = lambda _, __: None
    """Makes things of what a user has sent and no worker has looked at yet."""
    prefixes_of: Callable[[int], Sequence[str]] = lambda _: ()
    """Where all objects belong to one user."""
    export: TextClause | None = None
    """Rows of a user (`user`) past an id (`after`), up to `limit`, with the `trashed_at`, `who` and `why` of those in
    the trash, which are the person's still."""
    exported: Callable[[Connection, RowMapping], Exported] | None = None
    """What the person gets of such a row."""
    folder: str = ""
    """Where the export has the originals."""
    expired: Aging | None = None
    """What retention purges."""
    superseded: Aging | None = None
    """What something newer has replaced for long enough, for the trash."""
    tag: str = ""
    """The beginning of its tags in a CDN, before the id; empty where no answer has one."""
    holding: Callable[[Services], Holding] | None = None
    """Its bucket for the garbage collection."""
    tidy: Callable[[Services, float], Mapping[str, int]] = field(default=lambda _, __: {})
    """Removes history that is so many days old; rows by their kind."""
    forget_user: Callable[[Services, Connection, int], int] | None = None
    """Removes what is kept of a person beside things; returns how many rows."""

    def of_user(self, connection: Connection, user_id: int, limit: int) -> list[int]:
        """The first ids of a user's things that are not in the trash."""
        if not self.live:
            return []
        query = text(f"select id from {self.live} where user_id = :user order by id limit :limit")
        return list(connection.scalars(query, {"user": user_id, "limit": limit}))
