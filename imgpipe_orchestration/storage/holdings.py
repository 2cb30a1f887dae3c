"""Finds objects that no row names (garbage) and rows whose object is missing, one bucket at a time, in batches.

A bucket is listed once, a thousand keys per request; requesting each object would take longer than a night.

An object is written before its row, so it is garbage only after a grace period that no upload outlasts. Keys of an
unknown form are left alone. Nothing is deleted until the whole bucket was read: if most of it looks like garbage, it is
probably the wrong database, or one being restored.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime
from itertools import islice

from sqlalchemy import Engine, TextClause

from imgpipe_orchestration.storage.objects import Bucket, StoredObject
from imgpipe_orchestration.storage.rows import transaction

BATCH = 500
"""Keys per query."""
SHOWN = 20
"""Keys of each kind that a report names."""
MANY = 1000
"""Objects of garbage up to which it is deleted even if it is most of a bucket, while rows name other objects."""
FEW = 20
"""The same where no row names any object."""


@dataclass(frozen=True, slots=True)
class Promise:
    """A row that says that an object exists. Promises are read in the order of `row`."""

    row: int
    key: str
    size: int | None = None
    """Bytes of the object, if the row has that; an object of another size counts as missing."""


@dataclass(frozen=True)
class Holding:
    """How the objects of one bucket relate to rows."""

    name: str
    bucket: Bucket
    prefixes: tuple[str, ...]
    """Where garbage is looked for; everything else in the bucket stays."""
    named: Callable[[Sequence[str]], Collection[str]]
    """Returns those of some keys that a row names or that have an unknown form."""
    promised: Callable[[int, int], list[Promise]]
    """Takes the last row read and a limit; returns the next promises."""
    sized: bool = False
    """Whether promises have sizes."""
    repair: Callable[[Sequence[Promise]], int] | None = None
    """Has missing objects made again; returns for how many rows. None where they cannot be made."""
    is_original: Callable[[Promise], bool] = lambda _: True
    """Whether an object cannot be made again; the row's others are made of it."""


def named_by(engine: Engine, statement: TextClause) -> Callable[[Sequence[str]], set[str]]:
    """A `Holding.named` that runs a statement with the parameter `keys`, which selects keys."""

    def named(keys: Sequence[str]) -> set[str]:
        with transaction(engine) as connection:
            return set(connection.scalars(statement, {"keys": list(keys)}))

    return named


def promised_by(engine: Engine, statement: TextClause) -> Callable[[int, int], list[Promise]]:
    """A `Holding.promised` that runs a statement with the parameters `after` and `limit`, which selects (row, key) or
    (row, key, size) in the order of rows."""

    def promised(after: int, limit: int) -> list[Promise]:
        with transaction(engine) as connection:
            return [Promise(*row) for row in connection.execute(statement, {"after": after, "limit": limit})]

    return promised


@dataclass
class Collected:
    """What was examined, found and done in one bucket."""

    name: str
    objects: int = 0
    garbage: int = 0
    garbage_bytes: int = 0
    young: int = 0
    """Named by no row, but within the grace period."""
    deleted: int = 0
    rows: int = 0
    missing: int = 0
    lost: int = 0
    """Missing objects that cannot be made again."""
    repaired: int = 0
    """Rows whose missing objects are made again."""
    doubt: str = ""
    """Why nothing was done, although it should be: most objects are garbage by a database that may be the wrong one."""
    garbage_keys: list[str] = field(default_factory=list)
    missing_keys: list[str] = field(default_factory=list)


def collect(holding: Holding, *, before: datetime, act: bool, even_most: bool = False) -> Collected:
    """Find garbage and missing objects of one bucket.

    Args:
        before: only objects last written before this moment can be garbage.
        act: delete garbage and have missing objects made again; else only report.
        even_most: also where more than `MANY` objects and more than half of the bucket are garbage, or more than `FEW`
            and no row promises an object; without it such a bucket stays as it is, and `doubt` says why.

    Raises:
        BackendUnavailable: object store or database went away; what was deleted until then was garbage.
    """
    found = Collected(holding.name)
    garbage: list[str] = []
    # Hashes of the listed keys (with their sizes, if promises have sizes), some 80 bytes each. A missing key with the
    # same hash as a listed one would be taken for listed: with ten million keys, one in 10**12.
    listed: set[int] = set()
    with ThreadPoolExecutor(8, thread_name_prefix="garbage") as pool:
        for prefix in holding.prefixes:
            objects = holding.bucket.list(prefix)
            while batch := list(islice(objects, BATCH)):
                found.objects += len(batch)
                listed.update(hash((one.key, one.size if holding.sized else None)) for one in batch)
                garbage += _garbage(holding, batch, found, before)
        if act and not even_most and _is_doubtful(holding, found):
            act = False
            found.doubt = (
                f"{found.name}: {found.garbage:,} of {found.objects:,} objects are named by no row; nothing was"
                " deleted. Is this the right database, and all of it restored? Then `imgpipe gc --delete --even-most`"
                " deletes them."
            )
        for start in range(0, len(garbage) if act else 0, BATCH):
            doomed = garbage[start : start + BATCH]
            found.deleted += sum(pool.map(lambda key: _delete(holding, key, before), doomed))
        after = 0
        while promises := holding.promised(after, BATCH):
            after = promises[-1].row
            found.rows += len(promises)
            # The objects of the others were written since then, are missing or have another size.
            asked = [promise for promise in promises if hash((promise.key, promise.size)) not in listed]
            heads = pool.map(lambda promise: holding.bucket.head(promise.key), asked)
            pairs = zip(asked, heads, strict=True)
            absent = [one for one, head in pairs if head is None or one.size not in (None, head.size)]
            # A run may have replaced an object and its row since the page was read.
            still = set(holding.named([promise.key for promise in absent])) if absent else set()
            missing = [promise for promise in absent if promise.key in still]
            found.missing += len(missing)
            found.missing_keys += [promise.key for promise in missing][: SHOWN - len(found.missing_keys)]
            gone = {promise.row for promise in missing if holding.is_original(promise)}
            mendable = [promise for promise in missing if promise.row not in gone]
            found.lost += len(missing) - len(mendable)
            if mendable and act and holding.repair is not None:
                found.repaired += holding.repair(mendable)
    return found


def _garbage(holding: Holding, batch: list[StoredObject], found: Collected, before: datetime) -> list[str]:
    """The keys of a batch that are garbage."""
    named = set(holding.named([one.key for one in batch]))
    garbage = []
    for one in batch:
        if one.key in named:
            continue
        if one.modified is None or one.modified >= before:
            found.young += 1
            continue
        garbage.append(one.key)
        found.garbage += 1
        found.garbage_bytes += one.size
    found.garbage_keys += garbage[: SHOWN - len(found.garbage_keys)]
    return garbage


def _is_doubtful(holding: Holding, found: Collected) -> bool:
    """Whether the database may be the wrong one, or not restored."""
    if found.garbage <= max(FEW, found.objects // 2):
        return False
    return found.garbage > MANY or not holding.promised(0, BATCH)


def _delete(holding: Holding, key: str, before: datetime) -> bool:
    """Delete an object if it is still garbage; returns whether it was deleted. A key that is made of a content hash may
    have come back into use while the bucket was listed."""
    head = holding.bucket.head(key)
    if head is None or head.modified is None or head.modified >= before or holding.named([key]):
        return False
    holding.bucket.delete(key)
    return True
