"""Objects that no row names, and rows that name no object: found in both directions, in batches, one bucket at a time.

A bucket is listed once, a thousand keys a request; no object is asked about by itself that the listing has shown. Years
of images are millions of objects, and as many requests would take longer than a night.

An object is garbage only when it is older than a grace period that no upload outlasts, for its bytes are written before
its row. What is not recognised is never touched.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime
from itertools import islice

from sqlalchemy import Engine, TextClause

from imgpipe_orchestration.storage.objects import Bucket, StoredObject
from imgpipe_orchestration.storage.rows import transaction

BATCH = 500
"""Keys one query is asked about."""
SHOWN = 20
"""Keys of each kind that a report names."""


@dataclass(frozen=True, slots=True)
class Promise:
    """A row that says an object is there; `row` is the row's place in the order in which promises are read."""

    row: int
    key: str
    size: int | None = None
    """Its bytes, where the row tells them: an object of another length counts as missing."""


@dataclass(frozen=True)
class Holding:
    """How the objects of one bucket hang together with rows."""

    name: str
    bucket: Bucket
    prefixes: tuple[str, ...]
    """What is looked at; everything else in the bucket stays."""
    named: Callable[[Sequence[str]], Collection[str]]
    """Those of some keys that a row names, or that are not recognised."""
    promised: Callable[[int, int], list[Promise]]
    """The next promises after a row, in the order of their rows, at most so many."""
    sized: bool = False
    """Whether promises tell sizes."""
    repair: Callable[[Sequence[Promise]], int] | None = None
    """Has what is missing made again; returns for how many rows. None: nothing can make it."""


def named_by(engine: Engine, statement: TextClause) -> Callable[[Sequence[str]], set[str]]:
    """`Holding.named` by a statement that takes `keys` and answers those that are named or not recognised."""

    def named(keys: Sequence[str]) -> set[str]:
        with transaction(engine) as connection:
            return set(connection.scalars(statement, {"keys": list(keys)}))

    return named


def promised_by(engine: Engine, statement: TextClause) -> Callable[[int, int], list[Promise]]:
    """`Holding.promised` by a statement that takes `after` and `limit` and answers (row, key) or (row, key, size) in
    the order of rows."""

    def promised(after: int, limit: int) -> list[Promise]:
        with transaction(engine) as connection:
            return [Promise(*row) for row in connection.execute(statement, {"after": after, "limit": limit})]

    return promised


@dataclass
class Found:
    """What was looked at in one bucket, what was found and what was done."""

    name: str
    objects: int = 0
    garbage: int = 0
    garbage_bytes: int = 0
    young: int = 0
    """Named by no row, but within the grace period."""
    deleted: int = 0
    rows: int = 0
    missing: int = 0
    repaired: int = 0
    garbage_keys: list[str] = field(default_factory=list)
    missing_keys: list[str] = field(default_factory=list)


def collect(holding: Holding, *, before: datetime, act: bool) -> Found:
    """Look through one bucket.

    Args:
        before: garbage is what was last written before this moment.
        act: delete garbage and have missing objects made again; else only tell.

    Raises:
        BackendUnavailable: object store or database went away; what was deleted until then was garbage.
    """
    found = Found(holding.name)
    listing = _Listing(sized=holding.sized)
    with ThreadPoolExecutor(8, thread_name_prefix="garbage") as pool:
        for prefix in holding.prefixes:
            listed = holding.bucket.list(prefix)
            while batch := list(islice(listed, BATCH)):
                found.objects += len(batch)
                listing.add(batch)
                garbage = _garbage(holding, batch, found, before)
                if act:
                    found.deleted += sum(pool.map(lambda key: _delete(holding, key, before), garbage))
        unlisted = listing.end()
        for promises in _pages(holding):
            found.rows += len(promises)
            asked = unlisted(promises)
            heads = pool.map(lambda promise: holding.bucket.head(promise.key), asked)
            missing = _missing(holding, [p for p, head in zip(asked, heads, strict=True) if not _keeps(head, p)])
            found.missing += len(missing)
            found.missing_keys += [promise.key for promise in missing][: SHOWN - len(found.missing_keys)]
            if missing and act and holding.repair is not None:
                found.repaired += holding.repair(missing)
    return found


class _Listing:
    """The keys of a listing, with their sizes where promises tell them, eight bytes each. Of two keys with one hash a
    missing one would be taken for listed, which of ten million happens to one in 10**12."""

    def __init__(self, *, sized: bool) -> None:
        self._sized = sized
        self._hashes = array("q")

    def add(self, batch: Sequence[StoredObject]) -> None:
        self._hashes.extend(hash((one.key, one.size if self._sized else None)) for one in batch)

    def end(self) -> Callable[[Sequence[Promise]], list[Promise]]:
        """Close the listing. Returns a function that picks from some promises those that were not listed: their objects
        were written since, are missing or have another size."""
        import numpy as np

        listed = np.frombuffer(self._hashes, np.int64)
        listed.sort()  # in place: there may be hundreds of megabytes

        def unlisted(promises: Sequence[Promise]) -> list[Promise]:
            wanted = np.array([hash((promise.key, promise.size)) for promise in promises], np.int64)
            found = np.searchsorted(listed, wanted, "right") > np.searchsorted(listed, wanted)
            return [promise for promise, known in zip(promises, found, strict=True) if not known]

        return unlisted


def _garbage(holding: Holding, batch: list[StoredObject], found: Found, before: datetime) -> list[str]:
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


def _keeps(head: StoredObject | None, promise: Promise) -> bool:
    return head is not None and promise.size in (None, head.size)


def _missing(holding: Holding, absent: list[Promise]) -> list[Promise]:
    """Those of the promises that rows still make: a run may have replaced an object, and its row, after the page was
    read."""
    still = set(holding.named([promise.key for promise in absent])) if absent else set()
    return [promise for promise in absent if promise.key in still]


def _delete(holding: Holding, key: str, before: datetime) -> bool:
    """Delete an object if it is garbage still: names that tell the content may come back while a bucket is listed.
    Returns whether it was deleted."""
    head = holding.bucket.head(key)
    if head is None or head.modified is None or head.modified >= before or holding.named([key]):
        return False
    holding.bucket.delete(key)
    return True


def _pages(holding: Holding) -> Iterator[list[Promise]]:
    after = 0
    while page := holding.promised(after, BATCH):
        yield page
        after = page[-1].row
