"""Waits for a provider that is down without spending attempts, for up to PATIENCE_SECONDS.

Only calls that nobody charges for count: no connection, or a 5xx (`PartnerAway`). A call that timed out or broke off
may have been charged, so it spends an attempt. A 5xx that only this item gets, while others are answered, is no outage.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from sqlalchemy import text

from imgpipe_orchestration.avatars.store import DATA
from imgpipe_orchestration.errors import PartnerAway, PartnerRefused
from imgpipe_orchestration.services import Services
from imgpipe_orchestration.storage.claims import Claim
from imgpipe_orchestration.storage.rows import transaction

PATIENCE_SECONDS = 6 * 3600.0
SHORTEST, LONGEST = 15.0, 120.0
"""Limits of the seconds to the next try, which are a quarter of the time that the provider has been away."""

ALONE = 2 * SHORTEST
"""Seconds (three tries) after which an item that gets a 5xx is given up, if others were answered meanwhile."""


class Outage(PartnerAway):
    """A provider is away; the item waits for it."""

    title = "Waiting for a partner"
    spends_attempt = False


def waiting_out(services: Services, claim: Claim, work: Callable[[], None]) -> None:
    """Do `work`, and let the item wait while a provider is away.

    Raises:
        Outage: a provider is away, for less than PATIENCE_SECONDS so far.
        PartnerRefused: it has been away for longer than that, or only for this item.
        Exception: from `work`.
    """
    try:
        work()
    except PartnerAway as away:
        limit, waited = PATIENCE_SECONDS, _waited(services, claim)
        if waited >= ALONE and away.partner_status is not None and _others_answered(services, claim, waited):
            raise PartnerRefused(f"{away.public}; others were answered meanwhile", detail=away.detail) from away
        if waited >= limit:
            raise PartnerRefused(f"{away.public}; waited for since {_moment(-waited)}") from away
        pause = max(away.retry_after or 0.0, min(max(waited / 4, SHORTEST), LONGEST))
        told = f"{away.public}; it is asked again until {_moment(limit - waited)}"
        raise Outage(told, detail=away.detail, retry_after=pause, partner_status=away.partner_status) from away


def _waited(services: Services, claim: Claim) -> float:
    """Seconds since the first of the item's latest consecutive attempts that ended with an outage."""
    values = {"queue": claim.queue, "item": claim.item_id, "code": Outage("").code}
    with transaction(services.engine) as connection:
        return float(connection.scalar(_WAITED, values) or 0)


def _others_answered(services: Services, claim: Claim, waited: float) -> bool:
    """Whether the provider answered the same kind of call of others since it first failed this item."""
    item = f"task_{claim.item_id}" if claim.queue == DATA.name else f"%/persona_{claim.item_id}"
    with transaction(services.engine) as connection:
        return bool(connection.scalar(_OTHERS, {"item": item, "seconds": waited}))


def _moment(seconds: float) -> str:
    return f"{datetime.now(UTC) + timedelta(seconds=seconds):%Y-%m-%d %H:%M} UTC"


_OTHERS = text("""
    select exists (
        select from paid_call_uses bad join paid_call_uses good using (provider, operation)
        where bad.pipeline = 'avatars' and bad.item like :item and bad.outcome = 'failed'
            and good.outcome = 'bought' and good.error is null
            and least(bad.at, good.at) > clock_timestamp() - make_interval(secs => :seconds))
""")
_WAITED = text("""
    select extract(epoch from clock_timestamp() - min(ended_at)) from work_attempts
    where queue = :queue and item_id = :item and error_code = :code and attempt > coalesce((
        select max(attempt) from work_attempts
        where queue = :queue and item_id = :item and error_code is distinct from :code and outcome <> 'lost'), 0)
""")
