"""From an execution to its analyses: everything unprocessed that the external API lists for one organization."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from sqlalchemy import text

from imgpipe_orchestration.logs import logger
from imgpipe_orchestration.partners.ssrf import AllowList, Guard
from imgpipe_orchestration.partners.vision_analysis import Malformed, VisionAnalysis, VisionAnalysisApi
from imgpipe_orchestration.storage.claims import Claim
from imgpipe_orchestration.storage.rows import transaction
from imgpipe_orchestration.vision_reports import analyses, executions
from imgpipe_orchestration.vision_reports.analyses import Listed
from imgpipe_orchestration.vision_reports.model import Connection, Document, plain_text

if TYPE_CHECKING:
    from imgpipe_orchestration.services import Services

log = logger(__name__)

_DOCUMENTS_LIMIT = 2000


def fetch_list(services: Services, claim: Claim) -> None:
    """List one execution's analyses and commit each with its work item; the execution's own item is then done.

    Raises:
        Gone: the cron job was deleted.
        PartnerRefused, PartnerUnavailable, RateLimited: as `VisionAnalysisApi.unprocessed`.
    """
    settings = services.settings
    with transaction(services.engine) as rows:
        connection = executions.connection_of(rows, claim.item_id, services.vault)
    listed: list[Listed] = []
    unusable: list[str] = []
    foreign = 0
    with api_of(services, connection) as api:
        for found in api.unprocessed(page_size=settings.vision_page_size):
            if isinstance(found, Malformed):
                name = found.vision_analysis_id or "an entry without an id"
                unusable.append(plain_text(f"{name}: {found.reason}", 300))
            elif found.organization_id.casefold() != connection.organization_id.casefold():
                foreign += 1
            elif not found.is_processed:
                listed.append(_listed(found))
            if len(listed) >= settings.vision_max_analyses:
                log.warning("more analyses than one execution takes", extra={"taken": len(listed)})
                break
    note = f"{len(unusable)} entries of the list cannot be used. {'; '.join(unusable[:5])}" if unusable else None
    source, new = analyses.source_of(connection.get_url), 0
    with services.claims.fenced(claim) as rows:
        # Two jobs that list the same API at once would else wait for each other's rows.
        rows.execute(text("select pg_advisory_xact_lock(hashtextextended(:source, 0))"), {"source": source})
        for analysis in listed:
            new += analyses.register(
                rows, services.claims, claim.item_id, source, connection.organization_id, analysis, services.vault
            )
        rows.execute(
            text("update vision_executions set listed_at = now(), error = :note where id = :id"),
            {"id": claim.item_id, "note": note},
        )
        executions.settle(rows, [claim.item_id])
        services.claims.finish(rows, executions.QUEUE, claim)
    log.info(
        "listed",
        extra={"execution": claim.item_id, "unprocessed": len(listed), "new": new, "of_others": foreign},
    )


def api_of(services: Services, connection: Connection) -> VisionAnalysisApi:
    """The client of a connection's external API.

    In production an operator allows a private address by name (ALLOWED_PRIVATE_HOSTS), like that of a document.
    """
    settings = services.settings
    guard = Guard(AllowList.parse(settings.allowed_private_hosts)) if settings.production else None
    return VisionAnalysisApi(
        connection.get_url,
        connection.post_url,
        connection.key,
        guard=guard,
        timeout=settings.partner_timeout_seconds,
    )


def _listed(found: VisionAnalysis) -> Listed:
    return Listed(
        vision_analysis_id=plain_text(found.vision_analysis_id, 200),
        run_code=plain_text(found.vision_analysis_run_code, 200),
        user_query=plain_text(found.user_query, 4000),
        created_day=_day(found.created_date),
        documents=tuple(_documents(found)),
    )


def _documents(found: VisionAnalysis) -> Iterable[Document]:
    """The inputs, each under a name of its own: names are how descriptions and reports refer to them."""
    taken: dict[str, int] = {}
    for document in found.documents[:_DOCUMENTS_LIMIT]:
        if not document.is_input:
            continue
        name = plain_text(document.document_name, 200) or _last_part(document.document_path) or "document"
        taken[name] = taken.get(name, 0) + 1
        unique = name if taken[name] == 1 else f"{name} ({taken[name]})"
        yield Document(unique, document.document_path, plain_text(document.document_type, 40))


def _last_part(url: str) -> str:
    try:
        return plain_text(unquote(urlsplit(url).path).rsplit("/", 1)[-1], 200)
    except ValueError:
        return ""


def _day(created: str) -> date:
    """The UTC day an analysis was created on; today when the API does not say."""
    try:
        moment = datetime.fromisoformat(created)
    except ValueError:
        return datetime.now(UTC).date()
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC).date()
