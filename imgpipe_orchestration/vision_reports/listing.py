"""Lists an execution's analyses: all unprocessed ones that the external API has for one organization."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from sqlalchemy import text

from imgpipe_orchestration.partners.retry import RetryPolicy
from imgpipe_orchestration.partners.ssrf import Guard
from imgpipe_orchestration.partners.vision_analysis import Malformed, Unfinished, VisionAnalysis, VisionAnalysisApi
from imgpipe_orchestration.storage.claims import Claim
from imgpipe_orchestration.storage.rows import transaction
from imgpipe_orchestration.storage.secrets import Vault
from imgpipe_orchestration.storage.work import Watch
from imgpipe_orchestration.telemetry.logs import logger
from imgpipe_orchestration.vision_reports import analyses, executions
from imgpipe_orchestration.vision_reports.model import FIRST_DAY, ApiAccess
from imgpipe_orchestration.web.texts import plain_text

if TYPE_CHECKING:
    from imgpipe_orchestration.wiring.services import Services

log = logger(__name__)

MOST_ANALYSES = 1000
"""Most analyses that one execution takes up."""
_DOCUMENTS_LIMIT = 2000
LIST_SECONDS, PAGE_SECONDS = 60.0, 60.0
"""Time for an execution's list, after which no further page is asked for, and for a page with all its tries."""


def fetch_list(services: Services, claim: Claim) -> None:
    """List one execution's analyses and commit each with its work item; the execution's own item is then done.

    Raises:
        Gone: the cron job was deleted.
        PartnerRefused, PartnerUnavailable, RateLimited: as `VisionAnalysisApi.unprocessed`.
    """
    settings = services.settings
    with transaction(services.engine) as rows:
        connection = executions.connection_of(rows, claim.item_id, services.vault)
    listed: list[dict[str, Any]] = []
    unusable: list[str] = []
    nobodys: list[str] = []
    notes: list[str] = []
    foreign = 0
    policy = RetryPolicy(budget=PAGE_SECONDS, stopped=Watch(services.claims, claim))
    with closing(api_of(services, connection, policy)) as api:
        try:
            for found in api.unprocessed(page_size=settings.vision_page_size, seconds=LIST_SECONDS):
                if found.organization_id.casefold() not in {"", connection.organization_id.casefold()}:
                    foreign += 1
                elif isinstance(found, Malformed):
                    name = found.vision_analysis_id or "an entry without an id"
                    whose = unusable if found.organization_id else nobodys
                    whose.append(plain_text(f"{name}: {found.reason}", 300))
                elif len(listed) < MOST_ANALYSES:
                    listed.append(_columns(found, services.vault))
                else:
                    raise Unfinished(f"More than {MOST_ANALYSES:,} analyses are unprocessed")
        except Unfinished as error:
            if not listed:
                raise
            notes.append(f"{error.public}; the others are left to later executions.")
    notes += [
        f"Entries of the list that {fault}: {len(entries)} ({'; '.join(entries[:5])})."
        for entries, fault in ((unusable, "cannot be used"), (nobodys, "name no organization"))
        if entries
    ]
    if foreign and not listed:  # else each report of an API that several organizations share would have this note
        notes.append(f"Unprocessed analyses of other organizations: {foreign}.")
    source = analyses.source_of(connection.get_url)
    with services.claims.fenced(claim) as rows:
        # Two jobs that list the same API at once would otherwise deadlock on each other's rows.
        rows.execute(text("select pg_advisory_xact_lock(hashtextextended(:source, 0))"), {"source": source})
        new = analyses.register(rows, services.claims, claim.item_id, source, connection.organization_id, listed)
        rows.execute(
            text("update vision_executions set listed_at = now(), error = :note, unusable = :unusable where id = :id"),
            {"id": claim.item_id, "note": " ".join(notes) or None, "unusable": len(unusable)},
        )
        executions.settle(rows, [claim.item_id])
        services.claims.finish(rows, executions.QUEUE, claim)
    log.info("listed", extra={"execution": claim.item_id, "unprocessed": len(listed), "new": new, "of_others": foreign})


def api_of(services: Services, connection: ApiAccess, policy: RetryPolicy | None = None) -> VisionAnalysisApi:
    """The client of a connection's external API. In production a private address must be in ALLOWED_PRIVATE_HOSTS."""
    settings = services.settings
    return VisionAnalysisApi(
        connection.get_url,
        connection.post_url,
        connection.key,
        guard=Guard.for_customers(settings),
        timeout=settings.partner_timeout_seconds,
        policy=policy,
    )


def _columns(found: VisionAnalysis, vault: Vault) -> dict[str, Any]:
    """The values of an analysis's row, as `analyses.register` takes them."""
    return {
        "vision_analysis_id": found.vision_analysis_id,
        "run_code": plain_text(found.vision_analysis_run_code, 200),
        "user_query": plain_text(found.user_query, 4000),
        "created_day": _day(found.created_date),
        "documents": vault.lock(json.dumps(list(_documents(found)))),
    }


def _documents(found: VisionAnalysis) -> Iterator[dict[str, str]]:
    """The input documents, each once, as `model.Document` has them."""
    # By the whole entry, because some APIs list a file several times. Without an address, each entry counts as one.
    numbered = enumerate(found.documents[:_DOCUMENTS_LIMIT])
    inputs = {d if d.document_path else number: d for number, d in numbered if d.is_input}.values()
    for document in inputs:
        name = plain_text(document.document_name, 200) or _last_part(document.document_path) or "document"
        # Storage paths are often listed with unescaped spaces.
        url = document.document_path.strip().replace(" ", "%20")
        yield {"name": name, "url": url, "kind": plain_text(document.document_type, 40)}


def _last_part(url: str) -> str:
    try:
        return plain_text(unquote(urlsplit(url).path).rsplit("/", 1)[-1], 200)
    except ValueError:
        return ""


def _day(created: str) -> date:
    """The day (UTC) on which an analysis was created, moved into the range of the partitions, because only those can be
    backfilled. Today when the API names none or an invalid one."""
    today = datetime.now(UTC).date()
    try:
        moment = datetime.fromisoformat(created)
        day = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC).date()
    except (ValueError, OverflowError):
        return today
    return min(max(day, date.fromisoformat(FIRST_DAY)), today)
