"""Ends pauses, because a person knows that what caused them is mended."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from imgpipe_orchestration.services import Services
    from imgpipe_orchestration.storage.claims import Queue


def end(services: Services, queues: Sequence[Queue], ids: Sequence[int] | None = None) -> dict[str, list[int]]:
    """Ask all paused providers again, and make due what waits in some queues, or only `ids` of each.

    Returns:
        the ids of the items that waited, by queue.
    """
    services.ledger.resume()  # first, for what is due while its provider is paused would pause again
    return {queue.name: services.claims.hasten(queue, ids) for queue in queues}
