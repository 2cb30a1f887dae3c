"""What a feature says of things that it owns and that can be deleted."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection

from imgpipe_orchestration.services import Services
from imgpipe_orchestration.storage.deletions import Deletion, Thing
from imgpipe_orchestration.storage.garbage import Holding
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
    name: str = ""
    key: str = ""


def _nobody(_: Connection, __: int, ___: int) -> list[int]:
    """Things that belong to no user."""
    return []


def _nothing(_: Services, __: Connection) -> list[int]:
    """Things that do not age."""
    return []


@dataclass(frozen=True)
class Kind:
    """One kind of things. Ids are those of its rows."""

    name: str
    pipeline: str
    """The pipeline that it belongs to, also of its paid calls, whose items begin with `what`."""
    bucket: Callable[[Services], Bucket]
    stop: Callable[[Services, Connection, Sequence[int]], list[Thing]]
    """Locks the rows of some ids and takes them out of the queues; returns those that exist."""
    objects: Callable[[Services, Sequence[int]], dict[int, Objects]]
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
    of_user: Callable[[Connection, int, int], list[int]] = _nobody
    """The first so many ids of a user's things that are not in the trash."""
    prefixes_of: Callable[[int], Sequence[str]] = lambda _: ()
    """Where all objects belong to one user."""
    exported: Callable[[Services, int], Iterable[Exported]] = lambda _, __: ()
    """Everything of a user, a few rows at a time."""
    folder: str = ""
    """Where the export has the originals."""
    expired: Callable[[Services, Connection], list[int]] = _nothing
    """Ids that retention purges now."""
    superseded: Callable[[Services, Connection], list[int]] = _nothing
    """Ids that something newer has replaced for long enough, for the trash."""
    tag: str = ""
    """The beginning of its tags in a CDN, before the id; empty where no answer has one."""
    holding: Callable[[Services], Holding] | None = None
    """Its bucket for the garbage collection."""
    tidy: Callable[[Services, float], Mapping[str, int]] = field(default=lambda _, __: {})
    """Removes history that is so many days old; rows by their kind."""
    forget_user: Callable[[Services, Connection, int], int] | None = None
    """Removes what is kept of a person beside things; returns how many rows."""
