"""Purges at the CDN, through a durable queue: what was ordered is sent until the CDN has taken it."""

from collections.abc import Sequence

from sqlalchemy import Connection, text

from imgpipe_orchestration.errors import ImgpipeError, PartnerRefused, SettingsError
from imgpipe_orchestration.storage.claims import Claim, Item, Queue
from imgpipe_orchestration.storage.rows import transaction
from imgpipe_orchestration.wiring.services import Services

CDN_PURGES = Queue("cdn_purges", max_attempts=12)
"""Tags to be purged; item ids are those of `cdn_purges`. Twelve tries take some hours."""
SETTLED_SECONDS = 6.0
"""Delay before a purge is sent. By then every gateway has stopped serving the old answer, even one that missed the
notification; otherwise the CDN could fetch it again, and keep it for a year."""


def order(services: Services, connection: Connection, tags: Sequence[str]) -> None:
    """Purge some tags, within the transaction that changes what they stand for."""
    if services.settings.cdn_purge == "none" or not tags:
        return
    query = text("insert into cdn_purges (tag) select unnest(cast(:tags as text[])) returning id")
    ids = connection.scalars(query, {"tags": list(tags)})
    services.claims.enqueue(connection, CDN_PURGES, [Item(id_) for id_ in ids], delay=SETTLED_SECONDS)


def send_due(services: Services, owner: str) -> int:
    """Send what is due; returns how many tags were purged."""
    done = 0
    claims = services.claims
    while batch := claims.owned(CDN_PURGES, owner) + claims.claim(CDN_PURGES, owner, services.cdn.most):
        sent = _send(services, batch)
        done += sent
        if not sent:
            break
    return done


def _send(services: Services, batch: list[Claim]) -> int:
    ids = {"ids": [claim.item_id for claim in batch]}
    query = text("select distinct tag from cdn_purges where id = any(:ids) order by tag")
    with transaction(services.engine) as connection:
        tags = list(connection.scalars(query, ids))
    try:
        services.cdn.purge(tags)
    except ImgpipeError as error:
        if isinstance(error, PartnerRefused) and error.partner_status in {401, 403}:
            error = SettingsError(f"CDN_PURGE_TOKEN: {error.public}", detail=error.detail)
        for claim in batch:
            with services.claims.fenced(claim) as connection:
                services.claims.failed(connection, CDN_PURGES, claim, error)
        return 0
    with transaction(services.engine) as connection:
        for claim in batch:
            services.claims.finish(connection, CDN_PURGES, claim)
        connection.execute(text("delete from cdn_purges where id = any(:ids)"), ids)
    return len(batch)
