"""Reads and changes a customer's toggle, which is in MongoDB. The audit keeps who changed it."""

from datetime import datetime
from typing import Any

from imgpipe_orchestration.auto_marker.model import UnusableToggle, switched_on
from imgpipe_orchestration.auto_marker.store import ImageConfigs
from imgpipe_orchestration.identity import audit
from imgpipe_orchestration.wiring.services import Services


def read(services: Services, customer_id: str) -> dict[str, Any]:
    """The toggle in force. A customer without a document is new: on.

    Raises:
        UnusableToggle: the stored value is neither true nor false.
        BackendUnavailable: MongoDB is away.
    """
    known = ImageConfigs(services.documents).of(customer_id)
    newest: dict[str, Any] = known[0] if known else {}
    return {
        "customer_id": customer_id,
        "auto_mark_cleaned": switched_on(customer_id, known),
        "created_at": _moment(newest.get("created_at")),
        "updated_at": _moment(newest.get("updated_at")),
    }


def write(services: Services, customer_id: str, on: bool, *, by: str) -> None:
    """Set the toggle. The audit says who did it, when, and what it was before (null for a new customer).

    The audit's row is committed before MongoDB is changed, so that no change is without one.

    Raises:
        BackendUnavailable: MongoDB or PostgreSQL is away. It can be repeated; at worst the audit has two rows.
    """
    configs = ImageConfigs(services.documents)
    known = configs.of(customer_id)
    before: Any = None
    try:
        before = switched_on(customer_id, known) if known else None
    except UnusableToggle:
        before = [document.get("auto_mark_cleaned") for document in known]
    after = {"auto_mark_cleaned": on, "by": by}
    audit.note(before={"auto_mark_cleaned": before}, after=after, subject=customer_id)
    audit.record_change_elsewhere()
    configs.switch(customer_id, on)


def _moment(value: object) -> str | None:
    return value.isoformat() if isinstance(value, datetime) else None
