"""The auto-marker's queue of jobs, its MongoDB queries and their indexes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from imgpipe_orchestration.auto_marker.model import (
    JOB,
    NOTHING,
    has_partition,
    markable,
    pending,
    unchanged,
    unmarkable,
)
from imgpipe_orchestration.storage import job_instances
from imgpipe_orchestration.storage.claims import Queue
from imgpipe_orchestration.storage.documents import Document, Documents, Refused, reachable
from imgpipe_orchestration.telemetry.logs import logger

if TYPE_CHECKING:
    from pymongo.cursor import Cursor

log = logger(__name__)

QUEUE = Queue(JOB, mirror=job_instances.follow)
NEWS = "news_document"
CONFIG = "image_config"

READING_SECONDS = 25
"""Time limit of a query over all customers; below the client's timeout, so that the server stops working on it."""

PAGE_BYTES = 8 * 2**20
"""A page ends early when its images reach so many bytes. Some images are data URLs: a thousand of a megabyte would fill
a run's memory, and one answer with all of them would take longer than the client's timeout."""

LOOKED_AT = 100
"""Documents that a tick looks at, at most, to find one that can be marked."""

LOOKED_OVER = 20_000
"""Documents that the asset check looks over, in READING_SECONDS."""


@dataclass(frozen=True)
class Index:
    """An index the queries need."""

    collection: str
    keys: tuple[str, ...]
    unique: bool = False

    def __str__(self) -> str:
        return f"{self.collection}: {'unique ' if self.unique else ''}index over {', '.join(self.keys)}"


INDEXES = (
    # For the grouped query over all customers and for a customer's pending documents. Adding _id would spare MongoDB a
    # sort, but the embedded server refuses such an index, and after that every insert into the collection.
    Index(NEWS, ("clean_image", "customer_id")),
    # For whether a customer has documents. The embedded server also uses it for `$in` with null, for which it cannot
    # use the index above.
    Index(NEWS, ("customer_id",)),
    # For the asset check: what was marked last.
    Index(NEWS, ("auto_marked_cleaned", "clean_image_updated_at")),
    Index(CONFIG, ("customer_id",), unique=True),
    # For the customers who are switched off, read at every due tick.
    Index(CONFIG, ("auto_mark_cleaned", "customer_id")),
)


def create_indexes(documents: Documents) -> list[str]:
    """Create what is missing; returns what could not be created, in words. Safe to call from several processes."""
    from pymongo.errors import DuplicateKeyError, OperationFailure

    documents.ping()  # if anything is refused from here on, the credentials are not to blame
    refused: list[str] = []
    try:
        for index in missing_indexes(documents):
            try:
                with reachable():
                    documents.collection(index.collection).create_index(list(index.keys), unique=index.unique)
            except (DuplicateKeyError, OperationFailure) as error:
                log.warning("index refused", extra={"collection": index.collection, "error": str(error)})
                why = "two documents have the same values" if index.unique else "the server refuses it"
                refused.append(f"{index}: {why}")
    except Refused as error:
        log.warning("indexes refused", extra={"error": error.detail})
        refused.append("which is unknown, for the user of MONGODB_URL may not list or create indexes")
    return refused


def missing_indexes(documents: Documents) -> list[Index]:
    """The indexes that the queries need and the database lacks. By their keys, as others may have given them names."""
    missing: list[Index] = []
    for index in INDEXES:
        with reachable():
            known = documents.collection(index.collection).index_information().values()
        keys = [(tuple(key for key, _ in one["key"]), bool(one.get("unique"))) for one in known]
        if index.unique:
            there = (index.keys, True) in keys
        else:
            there = any(theirs[: len(index.keys)] == index.keys for theirs, _ in keys)
        if not there:
            missing.append(index)
    return missing


# --- news documents -------------------------------------------------------------------------------------------------


@dataclass
class Page:
    """Some pending documents of a customer, how many were marked, and why others were not."""

    documents: list[Document]
    good: list[Document] = field(default_factory=list)
    """Those that can be marked."""
    marked: int = 0
    problems: list[tuple[Any, str]] = field(default_factory=list)
    last: bool = True
    """Whether no pending documents follow."""


class News:
    """`news_document`: what is pending, and the one write the auto-marker does."""

    def __init__(self, documents: Documents) -> None:
        self._news = documents.collection(NEWS)

    def any_to_mark(self, *, opted_out: Sequence[str]) -> bool:
        """Whether a run would find something to mark. Looks at LOOKED_AT documents at most, whatever the backlog; where
        those do not tell, a run is to find out."""
        return any(self._can_mark_one(markable({"$eq": nothing}, opted_out=opted_out)) for nothing in NOTHING)

    def _can_mark_one(self, sought: Document) -> bool:
        from bson.errors import InvalidBSON

        # First one, which mostly suffices, because images may be data URLs of megabytes.
        for most in (1, LOOKED_AT):
            query = self._news.find(sought, {"customer_id": 1, "image": 1}).limit(most)
            try:
                with reachable():
                    found = list(query.max_time_ms(READING_SECONDS * 1000))
            except InvalidBSON:
                return True  # a run reports whose document cannot be read, and marks the others
            if any(has_partition(one["customer_id"]) and not unmarkable(one) for one in found):
                return True
            if len(found) < most:
                return False
        return True

    def pending_by_customer(self, *, opted_out: Iterable[str]) -> Counter[str]:
        """How many documents are pending, by customer_id; under "" those whose customer_id can be no customer's."""
        found = Counter[str]()
        others = {"$nin": list(opted_out)}
        with reachable():
            for nothing in NOTHING:
                match = {"$match": pending(others, {"$eq": nothing})}
                stages: list[Document] = [match, {"$group": {"_id": "$customer_id", "pending": {"$sum": 1}}}]
                for row in self._news.aggregate(stages, maxTimeMS=READING_SECONDS * 1000):
                    found[row["_id"] if has_partition(row["_id"]) else ""] += int(row["pending"])
        return found

    def how_images_lack(self, customer_id: str) -> Document:
        """The condition on `clean_image` that finds all of a customer's pending documents; see `pending`."""
        with reachable():
            empty = self._news.find(pending(customer_id, {"$eq": ""}), {"_id": 1}).limit(1)
            return {"$eq": None} if next(iter(empty), None) is None else {"$in": NOTHING}

    def mark_page(self, customer_id: str, clean_image: Document, *, skip: int, limit: int, most: int | None) -> Page:
        """Read up to `limit` of a customer's pending documents, or PAGE_BYTES of them, passing over the first `skip`,
        and mark those that can be.

        Each write's filter is `unchanged`, so a document that somebody cleaned or gave another image meanwhile is left
        alone. `marked` counts the documents that were changed.

        Args:
            clean_image: see `how_images_lack`.
            most: marks so many at most, the oldest by _id. None, of a backfill: all, in any order, which spares the
                server the sorting of each page.

        Raises:
            BackendUnavailable: MongoDB is away; what was acknowledged before is marked, the rest is pending still.
            bson.errors.InvalidBSON: a document cannot be read.
        """
        with reachable():
            found = self._news.find(pending(customer_id, clean_image), {"image": 1, "clean_image": 1})
            page = _page((found if most is None else found.sort("_id", 1)).skip(skip).limit(limit), limit, most)
        log.info(f"Found {len(page.documents)} pending images for customer {customer_id}")
        if page.good:
            self._mark(customer_id, page)
        return page

    def _mark(self, customer_id: str, page: Page) -> None:
        from pymongo import UpdateOne
        from pymongo.errors import BulkWriteError

        writes = [
            UpdateOne(
                unchanged(customer_id, document),
                {
                    "$set": {"clean_image": document["image"], "auto_marked_cleaned": True},
                    # By the server's clock; the one operator with which every server stores a date as a date.
                    "$currentDate": {"clean_image_updated_at": True},
                },
            )
            for document in page.good
        ]
        try:
            with reachable():
                page.marked += self._news.bulk_write(writes, ordered=False).modified_count
        except BulkWriteError as error:
            # Unordered: the other writes were made. A validator or the 16 MB limit may refuse single documents.
            page.marked += int(error.details.get("nModified", 0))
            for fault in error.details.get("writeErrors", []):
                page.problems.append((page.good[fault["index"]]["_id"], str(fault.get("errmsg", "refused"))[:200]))
            if not page.problems:
                raise
        if page.marked == len(page.good):  # else nobody knows which
            for document in page.good:
                log.debug(f"Marked image {document['_id']} as cleaned (auto-mark)")

    def any_of(self, customer_id: str) -> bool:
        """Whether the customer has a document, of whatever kind."""
        with reachable():
            return self._news.find_one({"customer_id": {"$eq": customer_id}}, {"_id": 1}) is not None

    def lacking(self, *, limit: int) -> list[Document]:
        """Of the documents marked last those without what the voice generator needs: a clean image and a summary."""
        marked: Document = {"auto_marked_cleaned": {"$in": [True, 1]}}
        last: list[Document] = [{"$match": marked}, {"$sort": {"clean_image_updated_at": -1}}, {"$limit": LOOKED_OVER}]
        found: dict[str, Document] = {}
        with reachable():
            for name in ("clean_image", "short_summary"):
                lack = {"$match": {name: {"$in": NOTHING}}}
                stages = [*last, lack, {"$limit": limit}, {"$project": {"customer_id": 1}}]
                rows = self._news.aggregate(stages, maxTimeMS=READING_SECONDS * 1000)
                found |= {str(row["_id"]): {**row, "lacks": name} for row in rows}
        return list(found.values())[:limit]


def _page(found: Cursor[Document], limit: int, most: int | None) -> Page:
    page, size = Page([], last=False), 0
    with found:
        for document in found:
            page.documents.append(document)
            if reason := unmarkable(document):
                page.problems.append((document["_id"], reason))
            else:
                page.good.append(document)
            size += len(document["image"]) if isinstance(document["image"], str | bytes) else 0
            if size >= PAGE_BYTES or len(page.good) == most:
                return page
    page.last = len(page.documents) < limit
    return page


# --- the toggle -----------------------------------------------------------------------------------------------------


class ImageConfigs:
    """`image_config`: the toggles. A customer without a document is new, and switched on."""

    def __init__(self, documents: Documents) -> None:
        self._configs = documents.collection(CONFIG)

    def opted_out(self) -> list[str]:
        """Customers whose toggle is off."""
        with reachable():
            query = self._configs.find({"auto_mark_cleaned": {"$in": [False, 0]}}, {"customer_id": 1, "_id": 0})
            found = [document.get("customer_id") for document in query.max_time_ms(READING_SECONDS * 1000)]
        return sorted({customer for customer in found if isinstance(customer, str)})

    def customers(self) -> list[Any]:
        """The customer_id of every document, as stored, which may be no text."""
        with reachable():
            return [document.get("customer_id") for document in self._configs.find({}, {"customer_id": 1, "_id": 0})]

    def of(self, customer_id: str) -> list[Document]:
        """The customer's documents: normally one, none for a new customer."""
        with reachable():
            return list(self._configs.find({"customer_id": customer_id}))

    def add_new(self, customer_id: str) -> None:
        """Give a customer a document, switched on, unless there is one."""
        from pymongo.errors import DuplicateKeyError

        now = datetime.now(UTC)
        fresh = {"auto_mark_cleaned": True, "created_at": now, "updated_at": now}
        # The unique index allows one of two that are inserted at the same moment.
        with suppress(DuplicateKeyError), reachable():
            self._configs.update_one({"customer_id": customer_id}, {"$setOnInsert": fresh}, upsert=True)

    def switch(self, customer_id: str, on: bool) -> None:
        """Turn marking on or off, creating the document when there is none."""
        self.add_new(customer_id)
        change = {"$set": {"auto_mark_cleaned": on}, "$currentDate": {"updated_at": True}}
        with reachable():
            self._configs.update_many({"customer_id": customer_id}, change)
