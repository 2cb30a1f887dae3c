"""The steps of one analysis, from its documents to its delivered report.

`AnalysisWorker.advance` does what can be done now and returns when to call it again. Progress is committed before the
next action: the order's reference before the order, the batch's id before the wait, the upload's beginning before the
upload. So it may be killed at any point, and the next worker neither submits nor uploads twice.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Self, TypeVar
from urllib.parse import urlsplit

from sqlalchemy import Connection

from imgpipe_orchestration.errors import (
    BadInput,
    Conflict,
    Gone,
    ImgpipeError,
    NotFound,
    NotWhole,
    PartnerRefused,
    UnreadableAnswer,
)
from imgpipe_orchestration.partners.analysis_backend import AnalysisBackend, BatchOrder, BatchState
from imgpipe_orchestration.partners.fetch import FetchLimits
from imgpipe_orchestration.partners.ssrf import Guard
from imgpipe_orchestration.partners.vision_analysis import UncertainUpload, VisionAnalysisApi
from imgpipe_orchestration.storage.claims import Claim
from imgpipe_orchestration.telemetry.logs import logger
from imgpipe_orchestration.vision_reports import analyses, model
from imgpipe_orchestration.vision_reports.inputs import gather
from imgpipe_orchestration.vision_reports.listing import api_of
from imgpipe_orchestration.vision_reports.model import (
    IMAGE_BYTES,
    Analysis,
    ApiAccess,
    NoReport,
    Pause,
    TimedOut,
    next_poll,
    report_name,
)
from imgpipe_orchestration.web.names import plain_text

if TYPE_CHECKING:
    from imgpipe_orchestration.services import Services

log = logger(__name__)

UNHURRIED_SECONDS = 3 * 24 * 3600.0
"""How long an analysis that is not urgent waits for its backend: a batch at a provider may take a day and expire."""
MOST_IMAGES = 200
"""Most images taken from one analysis."""

_Value = TypeVar("_Value")


class AnalysisWorker:
    """Works on analyses; thread-safe, one for each run."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._lock = threading.Lock()
        self._apis: dict[ApiAccess, VisionAnalysisApi] = {}
        self._backends: dict[str, AnalysisBackend] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Close the connections to the partners."""
        with self._lock:
            for api in self._apis.values():
                api.close()
            for backend in self._backends.values():
                backend.close()
            self._apis.clear()
            self._backends.clear()

    def advance(self, claim: Claim, stopped: Callable[[], ImgpipeError | None]) -> Pause | None:
        """Take one analysis as far as possible now. Returns the pause to the next call, or None when it is delivered.

        Args:
            stopped: why its downloads are to end, or None.

        Raises:
            Permanent, Retryable: it could not go on.
            LeaseLost: another worker has taken the analysis over.
        """
        analysis = self._load(claim)
        backend = self._backend(analysis.connection.backend_url)
        batch_id = analysis.batch_id
        if batch_id is None:
            batch_id = self._submit(claim, analysis, backend, stopped)
            analysis = self._load(claim)
        elif analysis.waited is None:
            self._fenced(claim, analyses.awaited_anew)
            analysis = self._load(claim)
        pause = self._wait(claim, analysis, batch_id, backend)
        if pause is not None:
            return pause
        self._deliver(claim, analysis, batch_id, backend)
        return None

    def _load(self, claim: Claim) -> Analysis:
        """The analysis with its connection. Whoever loads it again, because minutes have passed, must not deliver it to
        the API of another organization.

        Raises:
            Gone: its cron job was deleted, or pointed elsewhere.
        """
        analysis = self._fenced(claim, lambda rows, number: analyses.load(rows, number, self._services.vault))
        if analysis.elsewhere:
            # Its new list does not have this analysis, or has it as another one, which would be delivered as well.
            raise Gone("Its cron job was pointed at another external API or organization since this was found.")
        return analysis

    def _fenced(self, claim: Claim, statement: Callable[[Connection, int], _Value]) -> _Value:
        """What `statement` returns for the claimed row, in a transaction of its own.

        Raises:
            LeaseLost: another worker has taken the analysis over.
        """
        with self._services.claims.fenced(claim) as rows:
            return statement(rows, claim.item_id)

    def _backend(self, url: str) -> AnalysisBackend:
        with self._lock:
            if url not in self._backends:
                self._backends[url] = backend_at(self._services, url)
            return self._backends[url]

    def _api(self, connection: ApiAccess) -> VisionAnalysisApi:
        with self._lock:
            if connection not in self._apis:
                self._apis[connection] = api_of(self._services, connection)
            return self._apis[connection]

    # --- documents to batch --------------------------------------------------------------------------------------

    def _submit(
        self,
        claim: Claim,
        analysis: Analysis,
        backend: AnalysisBackend,
        stopped: Callable[[], ImgpipeError | None],
    ) -> str:
        """Hand the images to the backend and start their batch; returns the batch's id."""
        organization = analysis.organization_id
        gathered = gather(
            analysis.documents,
            fetcher=self._services.fetcher,
            limits=FetchLimits(max_bytes=IMAGE_BYTES, stopped=stopped),
            max_images=MOST_IMAGES,
            patient=claim.failures + 1 < analyses.QUEUE.max_attempts,
            hand_over=lambda picture: backend.upload(picture, organization),
        )
        with self._services.claims.fenced(claim) as rows:
            total = len(gathered.images) + len(gathered.missing)
            analyses.note_images(rows, analysis.id, total=total, usable=len(gathered.images))
        if not gathered.images:
            reasons = "; ".join(f"{missing.name}: {missing.reason}" for missing in gathered.missing[:3])
            raise BadInput(f"No usable image. {reasons}" if reasons else "The analysis names no image.")
        order = BatchOrder(
            reference=analysis.reference,
            organization_id=organization,
            user_query=analysis.user_query,
            images=tuple(gathered.images),
            missing=tuple(gathered.missing),
            notes=tuple(gathered.notes),
            urgent=analysis.connection.urgent,
        )
        batch_id = backend.start(order)
        with self._services.claims.fenced(claim) as rows:
            analyses.submitted(rows, analysis.id, batch_id)
            self._services.claims.progress(rows, claim)
        log.info(
            "submitted",
            extra={"analysis": analysis.vision_analysis_id, "batch": batch_id, "images": len(gathered.images)},
        )
        return batch_id

    # --- batch to report -----------------------------------------------------------------------------------------

    def _wait(self, claim: Claim, analysis: Analysis, batch_id: str, backend: AnalysisBackend) -> Pause | None:
        """The pause to the next poll, or None when the batch is completed."""
        try:
            status = backend.status(batch_id)
        except NotFound:
            self._fenced(claim, analyses.forget_batch)
            raise
        if status.state is BatchState.COMPLETED:
            return None
        reason = plain_text(status.error, 300)
        if status.state is BatchState.FAILED:
            self._fenced(claim, analyses.forget_batch)
            raise PartnerRefused(f"The analysis backend gave the batch up: {reason or 'it gave no reason'}")
        waited = analysis.waited or 0.0
        limit = model.BATCH_SECONDS
        if not analysis.connection.urgent:
            limit = max(limit, UNHURRIED_SECONDS)
        if waited > limit:
            # Another execution has waited as long for the same batch: the backend has lost it.
            if self._fenced(claim, lambda rows, _: analyses.awaited_before(rows, analysis)):
                self._fenced(claim, analyses.forget_batch)
            raise TimedOut(
                f"The analysis backend did not finish batch {batch_id} within {limit:,.0f} s "
                f"({status.done} of {status.total} images done{f'; {reason}' if reason else ''})"
            )
        return Pause(min(next_poll(waited, status.retry_after), max(0.1, limit - waited)), reason)

    # --- report to customer --------------------------------------------------------------------------------------

    def _deliver(self, claim: Claim, analysis: Analysis, batch_id: str, backend: AnalysisBackend) -> None:
        api = self._api(analysis.connection)
        page_size = self._services.settings.vision_page_size
        # An earlier upload began and may have arrived: then the external API no longer lists the analysis. What a
        # backfill delivers anew is not listed in either case, so it is sent again.
        uncertain = analysis.upload_started_at is not None and not analysis.redelivery
        if not uncertain or api.is_unprocessed(analysis.vision_analysis_id, page_size=page_size):
            report = self._report(batch_id, backend)
            self._fenced(claim, analyses.uploading)
            self._upload(claim, analysis, batch_id, api, report)
        with self._services.claims.fenced(claim) as rows:
            analyses.delivered(rows, analysis.id)
            self._services.claims.finish(rows, analyses.QUEUE, claim)
        log.info("delivered", extra={"analysis": analysis.vision_analysis_id, "batch": batch_id})

    def _report(self, batch_id: str, backend: AnalysisBackend) -> bytes:
        """The report of a completed batch.

        Raises:
            NoReport: the backend does not have it, or not whole, or it is not HTML.
        """
        try:
            return backend.report(batch_id)
        except (NotFound, Conflict, NotWhole, UnreadableAnswer) as error:
            raise NoReport(error.public) from error
        except PartnerRefused as error:
            if error.partner_status in {404, 409, 410}:
                raise NoReport(error.public) from error
            raise

    def _upload(self, claim: Claim, analysis: Analysis, batch_id: str, api: VisionAnalysisApi, report: bytes) -> None:
        try:
            api.upload(
                html=report,
                filename=report_name(batch_id),
                vision_analysis_id=analysis.vision_analysis_id,
                organization_id=analysis.organization_id,
                listed=not analysis.redelivery,
                page_size=self._services.settings.vision_page_size,
            )
        except UncertainUpload:
            raise
        except ImgpipeError:
            # Refused, so it did not arrive, whatever the API lists at the next try.
            self._fenced(claim, analyses.not_uploaded)
            raise


def backend_at(services: Services, url: str) -> AnalysisBackend:
    """The backend at `url`. BACKEND_API_KEY goes to our gateway and to the host of BACKEND_API_URL only."""
    settings = services.settings
    timeout = settings.partner_timeout_seconds
    if _place(url) in {_place(settings.gateway_url), _place(settings.public_base_url)}:
        return AnalysisBackend(url, settings.backend_api_key or settings.admin_api_key, timeout=timeout)
    if _place(url)[:3] == _place(settings.backend_api_url)[:3]:
        return AnalysisBackend(url, settings.backend_api_key, timeout=timeout)
    # A cron job may name any other address: it does not get the key, and is no way into the private network.
    return AnalysisBackend(url, guard=Guard.for_customers(settings), timeout=timeout)


def _place(url: str) -> tuple[str, str, int | None, str]:
    """(scheme, host, port, path) of an address, normalised: `http://localhost:8000/` is `http://127.0.0.1:8000`."""
    parts = urlsplit(url)
    host = "127.0.0.1" if parts.hostname in {"localhost", "::1"} else parts.hostname or ""
    port = parts.port or {"http": 80, "https": 443}.get(parts.scheme)
    return parts.scheme, host, port, parts.path.rstrip("/")
