"""Asks other models the same about a share of new images, to compare them; what they say is used for nothing.

Which images is told by their bytes, so it is the same ones after a restart. The answers are in the ledger.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, text

from imgpipe_orchestration.billing.calls import Buyer
from imgpipe_orchestration.errors import Permanent
from imgpipe_orchestration.media import store
from imgpipe_orchestration.media.describing import descriptions
from imgpipe_orchestration.media.steps.retrieve import needed
from imgpipe_orchestration.media.store import MediaFile
from imgpipe_orchestration.partners.models import Choice
from imgpipe_orchestration.services import Services
from imgpipe_orchestration.storage.claims import Claim, Item
from imgpipe_orchestration.storage.rows import transaction
from imgpipe_orchestration.telemetry.logs import logger

log = logger(__name__)


@dataclass(frozen=True, slots=True)
class Compared:
    """What another model says: its `answer` (see `prompts.schema_of`), or why there is none."""

    model: str
    answer: dict[str, Any] | None
    error: str | None


def item_of(media_id: int) -> str:
    """The image's name in the ledger where another model is asked."""
    return f"media/{media_id}/canary"


def chosen(sha256: str | None, share: float) -> bool:
    """Whether an image is one of a share of all: always the same ones, and those of a smaller share among them."""
    return sha256 is not None and int(sha256[:8], 16) < share * 2**32


def order(services: Services, connection: Connection, media: MediaFile) -> None:
    """Put a new image into the queue if it is one of the share."""
    wanted = services.models.task("describe").canary
    if wanted and chosen(media.sha256, wanted.share):
        services.claims.enqueue(connection, store.CANARY, [Item(media.id, str(media.user_id))])


def ask(services: Services, claim: Claim) -> None:
    """Ask the other models about an image.

    Raises:
        Retryable: one may answer later.
    """
    from imgpipe_orchestration.imaging.measuring import look

    with transaction(services.engine) as connection:
        media = store.media_file(connection, claim.item_id)
    wanted = services.models.task("describe").canary
    choices = [Choice.of(one) for one in wanted.use] if wanted else []
    buyer = Buyer("media", item_of(media.id), tenant=str(media.user_id))
    try:
        seen = services.workshop.call(look, needed(services, media))
        for one in descriptions(services, media, seen.preview, buyer, choices):
            one.bought()
    except Permanent as error:  # the ledger has the reason
        log.info("no second opinion", extra={"media_id": media.id, "error": error.public})
    with services.claims.fenced(claim) as connection:
        services.claims.finish(connection, store.CANARY, claim)


def compared(connection: Connection, media_id: int) -> list[Compared]:
    """What other models say of an image, by model."""
    query = text("""
        select distinct on (u.model) u.provider || ':' || u.model as model, c.value -> 'answer' as answer, u.error
        from paid_call_uses u left join paid_calls c on c.key = u.key and c.state = 'committed'
        where u.pipeline = 'media' and u.item = :item order by u.model, u.id desc
    """)
    return [Compared(*row) for row in connection.execute(query, {"item": item_of(media_id)})]
