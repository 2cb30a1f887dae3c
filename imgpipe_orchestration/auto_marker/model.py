"""Which documents are pending or unmarkable, a run's figures, partition keys. Pure functions only."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote
from uuid import UUID

from imgpipe_orchestration.errors import BadInput, Permanent

JOB = "auto_marker"
"""Name of the Dagster job, of its job instances and of its heartbeat."""

NOTHING = [None, ""]
"""The values that count as missing. For `$eq: None`, `$in` and `$nin` a missing field is null, on every server."""

MOST_PROBLEMS = 10
"""Documents that cannot be marked are all counted, and so many of them named."""

LONGEST_KEY = 2000
"""Bytes of a customer's partition key in UTF-8; a longer one fits no index row of PostgreSQL."""


class UnusableToggle(Permanent):
    """A customer's `auto_mark_cleaned` is neither true nor false: nothing is marked until somebody decides."""


def pending(customer_id: Any, clean_image: Mapping[str, Any]) -> dict[str, Any]:
    """The filter for documents that wait to be marked, as the specification defines them.

    Args:
        customer_id: the customer, or a condition on the field.
        clean_image: condition on the field: `{"$eq": None}` (null or missing), `{"$eq": ""}`, or `{"$in": NOTHING}` for
            both. The first two are one range of the index on every server; for the last one the embedded server scans
            the collection. Always an operator, because for a bare value the embedded server also searches arrays, which
            takes it four times as long.
    """
    return {
        "customer_id": customer_id if isinstance(customer_id, Mapping) else {"$eq": customer_id},
        "image": {"$nin": NOTHING},
        "short_summary": {"$nin": NOTHING},
        "clean_image": dict(clean_image),
    }


def unchanged(customer_id: str, document: Mapping[str, Any]) -> dict[str, Any]:
    """The filter for a document that was read as pending, if it still is and has the same image.

    The condition on the summary is that of `pending`, in a form for which the embedded server needs one SQL statement.
    """
    return {
        "_id": document["_id"],
        "customer_id": {"$eq": customer_id},
        "image": {"$eq": document["image"]},
        "clean_image": {"$eq": document.get("clean_image")},
        "$and": [{"short_summary": {"$ne": nothing}} for nothing in NOTHING],
    }


def markable(clean_image: Mapping[str, Any], *, opted_out: Iterable[str]) -> dict[str, Any]:
    """The filter for documents of all customers but `opted_out` that a run could mark: pending, with text as `image`.

    Stricter than `pending`, so that a number as `image`, which can never be marked, does not cause a run every five
    minutes: only non-empty texts are greater than "". Every server also finds lists that contain a text, and the
    embedded one objects and dates (`$type` would exclude them, but is slow there).
    """
    return {**pending({"$gt": "", "$nin": list(opted_out)}, clean_image), "image": {"$gt": ""}}


def unmarkable(document: Mapping[str, Any]) -> str | None:
    """Why a pending document cannot be marked, or None. Only `image` is checked; the filter has checked the rest."""
    return None if isinstance(document.get("image"), str) else "its image is not text"


def switched_on(customer_id: str, configs: Iterable[Mapping[str, Any]]) -> bool:
    """Whether marking is on, by the `auto_mark_cleaned` of the customer's `image_config` documents (normally one).

    A missing or null value is the default, on. 0 and 1 count as booleans, because some servers store them as numbers.
    Of several documents, one that says off is enough.

    Raises:
        UnusableToggle: a value is neither true nor false.
    """
    values = [value for config in configs if (value := config.get("auto_mark_cleaned")) is not None]
    for value in values:
        if value not in (True, False):
            raise UnusableToggle(f"image_config of {customer_id!r}: auto_mark_cleaned is {value!r}, not true or false")
    return all(values)


@dataclass
class Figures:
    """What a run did for one customer."""

    customer_id: str
    found: int = 0
    marked: int = 0
    failed: int = 0
    seconds: float = 0.0
    note: str | None = None
    """Why nothing was done, when that is not an error."""
    error: str | None = None
    problems: list[str] = field(default_factory=list)
    """The first MOST_PROBLEMS documents that could not be marked, and why."""
    job_id: UUID | None = None
    again: bool = False
    """Whether an earlier run had begun this job and died: it may have marked images without reporting them."""

    def problem(self, document_id: Any, reason: str) -> None:
        """Count a document that could not be marked."""
        self.failed += 1
        if len(self.problems) < MOST_PROBLEMS:
            self.problems.append(f"document {document_id}: {reason}")

    @property
    def trouble(self) -> str | None:
        """The customer's error in one line, if there is one."""
        if self.error:
            return self.error
        if self.failed:
            more = f" and {self.failed - len(self.problems)} more" if self.failed > len(self.problems) else ""
            return f"{self.failed} cannot be marked: {'; '.join(self.problems)}{more}"
        return None

    @property
    def broken(self) -> bool:
        """Whether the customer's job failed: an error, or nothing but documents that cannot be marked."""
        return self.error is not None or (self.failed > 0 and self.marked == 0)

    def result(self) -> dict[str, Any]:
        """The figures as a job instance keeps and the API shows them."""
        figures: dict[str, Any] = {
            "images_found": self.found,
            "images_marked": self.marked,
            "images_failed": self.failed,
            "seconds": round(self.seconds, 3),
        }
        return {**figures, "note": self.note} if self.note else figures


NO_FIGURES = Figures("").result()
"""The figures of a job that has not run yet."""


def late_after(minutes: float) -> float:
    """Age of the last round in seconds (three intervals and a minute) from which the sensor cannot be running."""
    return minutes * 180 + 60


# --- partition keys -------------------------------------------------------------------------------------------------

_UNSAFE = re.compile(r"[%,|]|^\s|\s$|(?<=\.\.)\.")
"""Dagster's command line separates by `,` and `|` and strips spaces at the ends; Dagster refuses `...`."""


def partition_key(customer_id: str) -> str:
    """The customer id as a Dagster partition key: characters that Dagster cannot take become %XX of their UTF-8.

    Raises:
        BadInput: no text, too long, or with a NUL, which PostgreSQL cannot store.
    """
    if "\0" in customer_id:
        raise BadInput("A customer id cannot have a NUL character.", field="X-Customer-ID")
    escaped = _UNSAFE.sub(lambda match: _quoted(match[0]), customer_id)
    key = "".join(c if c.isprintable() else _quoted(c) for c in escaped)
    if not 0 < len(key.encode()) <= LONGEST_KEY:
        raise BadInput(
            f"A customer id has 1 to {LONGEST_KEY} bytes, escapes included; this one has {len(key.encode())}.",
            field="X-Customer-ID",
        )
    return key


def has_partition(customer: object) -> bool:
    """Whether a `customer_id` from MongoDB can be a partition key."""
    if not isinstance(customer, str):
        return False
    try:
        partition_key(customer)
    except BadInput:
        return False
    return True


def customer_of(key: str) -> str:
    """The customer of a partition key: the inverse of `partition_key`."""
    return unquote(key, errors="strict")


def _quoted(text: str) -> str:
    return "".join(f"%{byte:02X}" for byte in text.encode())
