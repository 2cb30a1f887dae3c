"""Reads and changes a customer's toggle (in MongoDB) and keeps its history (in PostgreSQL)."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, text

from imgpipe_orchestration.auto_marker.model import UnusableToggle, switched_on
from imgpipe_orchestration.auto_marker.store import ImageConfigs
from imgpipe_orchestration.identity import audit
from imgpipe_orchestration.services import Services
from imgpipe_orchestration.storage import jsonb
from imgpipe_orchestration.storage.documents import Document
from imgpipe_orchestration.storage.rows import autocommit, transaction

CHANGES_SHOWN = 20


def read(services: Services, customer_id: str) -> dict[str, Any]:
    """The toggle in force, with its newest changes. A customer without a document is new: on.

    Raises:
        UnusableToggle: the stored value is neither true nor false.
        BackendUnavailable: MongoDB or PostgreSQL is away.
    """
    known = ImageConfigs(services.documents).of(customer_id)
    on = switched_on(customer_id, known)
    with transaction(services.engine) as connection:
        rows = connection.execute(_CHANGES, {"customer": jsonb.escaped(customer_id), "limit": CHANGES_SHOWN}).all()
    newest: dict[str, Any] = known[0] if known else {}
    return {
        "customer_id": customer_id,
        "auto_mark_cleaned": on,
        "created_at": _moment(newest.get("created_at")),
        "updated_at": _moment(newest.get("updated_at")),
        "changes": [
            {
                "changed_by": jsonb.unescaped(row.changed_by),
                "changed_at": row.changed_at.isoformat(),
                "before": row.before,
                "after": row.after,
            }
            for row in rows
        ],
    }


def of_each(services: Services, customer_ids: Sequence[str]) -> dict[str, bool | None]:
    """Whether marking is on for each of some customers; None where the stored value is neither true nor false or cannot
    be read, in which case nothing is marked.

    Raises:
        BackendUnavailable: MongoDB is away.
    """
    from bson.errors import InvalidBSON

    try:
        known = ImageConfigs(services.documents).of_each(customer_ids)
    except InvalidBSON:
        if len(customer_ids) > 1:
            return {name: on for one in customer_ids for name, on in of_each(services, [one]).items()}
        return dict.fromkeys(customer_ids)
    return {name: _on(name, documents) for name, documents in known.items()}


def _on(customer_id: str, documents: Sequence[Document]) -> bool | None:
    try:
        return switched_on(customer_id, documents)
    except UnusableToggle:
        return None


def write(services: Services, customer_id: str, on: bool, *, by: str) -> None:
    """Set the toggle, and record who did it, when, and what it was before (null for a new customer).

    The history entry is committed before MongoDB is changed, so that no change is without one. Changes of one customer
    wait for each other, so that each `before` is the previous `after`.

    Raises:
        BackendUnavailable: MongoDB or PostgreSQL is away. It can be repeated; at worst the history has two entries.
    """
    configs = ImageConfigs(services.documents)
    # One connection for lock and entry: those who wait for the lock would keep a second one from its holder.
    with autocommit(services.engine) as connection, _alone(connection, customer_id):
        known = configs.of(customer_id)
        try:
            before: Any = switched_on(customer_id, known) if known else None
        except UnusableToggle:
            values = [document.get("auto_mark_cleaned") for document in known]
            before = json.loads(json.dumps(values, default=str))  # dates, ids and the like as texts
        entry = {
            "customer": jsonb.escaped(customer_id),
            "by": jsonb.escaped(by),
            "before": jsonb.dumps(before),
            "after": json.dumps(on),
        }
        audit.note(before={"auto_mark_cleaned": before}, after={"auto_mark_cleaned": on}, subject=customer_id)
        audit.record_change_elsewhere()
        connection.execute(_RECORD, entry)
        configs.switch(customer_id, on)


@contextmanager
def _alone(connection: Connection, customer_id: str) -> Iterator[None]:
    """Changes of one customer wait here for each other."""
    customer = {"customer": jsonb.escaped(customer_id)}
    connection.execute(_LOCK, customer)
    try:
        yield
    finally:
        connection.execute(_UNLOCK, customer)


def _moment(value: object) -> str | None:
    return value.isoformat() if isinstance(value, datetime) else None


_LOCK = text("select pg_advisory_lock(hashtextextended(:customer, 5))")
_UNLOCK = text("select pg_advisory_unlock(hashtextextended(:customer, 5))")

_RECORD = text("""
    insert into image_config_changes (customer_id, changed_by, before, after)
    values (:customer, :by, cast(:before as jsonb), cast(:after as jsonb))
""")

_CHANGES = text("""
    select changed_by, changed_at, before, after from image_config_changes
    where customer_id = :customer order by id desc limit :limit
""")
