"""A provider that is away is waited for: whoever needs it is not at fault and spends no attempt, up to a limit.

Only what nobody charges for counts: no connection, or a 5xx. A call that was too slow or broke off
may have been paid for, so asking again is counted as an attempt.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from sqlalchemy import text

from imgpipe_orchestration.errors import PartnerAway, PartnerRefused
from imgpipe_orchestration.services import Services
from imgpipe_orchestration.storage.claims import Claim
from imgpipe_orchestration.storage.rows import transaction

SHORTEST, LONGEST = 15.0, 120.0
"""Seconds between two looks whether the provider is back; in between a quarter of the time that it has been away."""


class Outage(PartnerAway):
    """A provider is away; the item waits for it."""

    title = "Waiting for a partner"
    spends_attempt = False


def waiting_out(services: Services, claim: Claim, work: Callable[[], None]) -> None:
    """Do `work`, and let the item wait while a provider is away.

    Raises:
        Outage: it is away, for less than AVATAR_OUTAGE_SECONDS so far.
        PartnerRefused: it has been away for longer than that.
        Exception: whatever else `work` raises.
    """
    try:
        work()
    except PartnerAway as away:
        limit, waited = services.settings.avatar_outage_seconds, _waited(services, claim)
        if waited >= limit:
            raise PartnerRefused(f"{away.public}; waited for since {_moment(-waited)}") from away
        pause = max(away.retry_after or 0.0, min(max(waited / 4, SHORTEST), LONGEST))
        told = f"{away.public}; it is asked again until {_moment(limit - waited)}"
        raise Outage(told, detail=away.detail, retry_after=pause, partner_status=away.partner_status) from away


def _waited(services: Services, claim: Claim) -> float:
    """Seconds since the first of the item's latest attempts that all ended in an outage."""
    values = {"queue": claim.queue, "item": claim.item_id, "code": Outage("").code}
    with transaction(services.engine) as connection:
        return float(connection.scalar(_WAITED, values) or 0)


def _moment(seconds: float) -> str:
    return f"{datetime.now(UTC) + timedelta(seconds=seconds):%Y-%m-%d %H:%M} UTC"


_WAITED = text("""
    select extract(epoch from clock_timestamp() - min(ended_at)) from work_attempts
    where queue = :queue and item_id = :item and error_code = :code and attempt > coalesce((
        select max(attempt) from work_attempts
        where queue = :queue and item_id = :item and error_code is distinct from :code and outcome <> 'lost'), 0)
""")
