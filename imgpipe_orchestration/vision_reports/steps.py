"""The steps of one analysis, from its documents to its delivered report.

`AnalysisWorker.advance` does what can be done now; while the batch is not finished it raises `StillWaiting`, which says
when to call it again. Progress is committed before the next action: the order's reference before the order, the batch's
id before the wait, the upload's beginning before the upload. So it may be killed at any point, and the next worker
neither submits nor uploads twice.

Each image is handed to the backend before the next is fetched, so an analysis of two hundred images needs the memory of
one. Nothing is written to files, so a run that is killed leaves none behind.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

from sqlalchemy import Connection

from imgpipe_orchestration.errors import (
    BadImage,
    BadInput,
    ImgpipeError,
    NotFound,
    PartnerRefused,
    PartnerUnavailable,
    Permanent,
    Retryable,
    TooLarge,
    UnreadableAnswer,
)
from imgpipe_orchestration.partners.analysis_backend import (
    AnalysisBackend,
    BatchOrder,
    BatchState,
    ImageFile,
    ImageOrder,
    Missing,
)
from imgpipe_orchestration.partners.fetch import DOWNLOAD, Fetcher
from imgpipe_orchestration.partners.json_text import decoded
from imgpipe_orchestration.partners.ssrf import Guard
from imgpipe_orchestration.partners.vision_analysis import UncertainUpload, VisionAnalysisApi
from imgpipe_orchestration.storage.claims import Claim
from imgpipe_orchestration.telemetry.logs import logger
from imgpipe_orchestration.vision_reports import analyses, model
from imgpipe_orchestration.vision_reports.listing import api_of
from imgpipe_orchestration.vision_reports.model import (
    IMAGE_BYTES,
    Analysis,
    Document,
    StillWaiting,
    TimedOut,
)
from imgpipe_orchestration.web.texts import plain_text

if TYPE_CHECKING:
    from imgpipe_orchestration.wiring.services import Services

log = logger(__name__)

UNHURRIED_SECONDS = 3 * 24 * 3600.0
"""How long an analysis that is not urgent waits for its backend: a batch at a provider may take a day and expire."""
FIRST_POLL, LONGEST_POLL = 0.5, 30.0
"""Limits of the seconds between two questions about a batch."""
MOST_IMAGES = 200
"""Most images taken from one analysis."""

_WITHOUT_REPORT = frozenset({404, 409, 410})
"""HTTP statuses by which a backend says that a batch has no report."""
_DESCRIPTIONS_LIMIT = 2 * 1024 * 1024
_DESCRIPTION_LENGTH = 2000

_Value = TypeVar("_Value")


class AnalysisWorker:
    """Works on analyses; thread-safe, one for each run.

    Args:
        opened: closes the connections to the partners.
    """

    def __init__(self, services: Services, opened: ExitStack) -> None:
        self._services = services
        self._opened = opened
        self._lock = threading.Lock()
        self._partners: dict[object, Any] = {}

    def advance(self, claim: Claim, stopped: Callable[[], ImgpipeError | None]) -> None:
        """Deliver the report of one analysis, or take it as far as possible now.

        Args:
            stopped: why its downloads are to end, or None.

        Raises:
            StillWaiting: its batch is not finished. To be called again after `retry_after` seconds.
            Permanent, Retryable: it could not go on.
            LeaseLost: another worker has taken the analysis over.
        """
        analysis = self._load(claim)
        url, trusted = analysis.connection.backend_url, analysis.connection.operators_backend
        backend: AnalysisBackend = self._partner((url, trusted), lambda: backend_at(self._services, url, trusted))
        batch_id = analysis.batch_id
        if batch_id is None:
            batch_id = self._submit(claim, analysis, backend, stopped)
            analysis, claim = self._load(claim), replace(claim, failures=0)  # progress has reset the row's
        self._wait(claim, analysis, batch_id, backend)
        self._deliver(claim, analysis, batch_id, backend)

    def _load(self, claim: Claim) -> Analysis:
        """The analysis with its connection. Whoever loads it again, because minutes have passed, must not deliver it to
        the API of another organization.

        Raises:
            Gone: its cron job was deleted, or pointed elsewhere.
        """
        return self._fenced(claim, lambda rows, number: analyses.load(rows, number, self._services.vault))

    def _fenced(self, claim: Claim, statement: Callable[[Connection, int], _Value]) -> _Value:
        """What `statement` returns for the claimed row, in a transaction of its own.

        Raises:
            LeaseLost: another worker has taken the analysis over.
        """
        with self._services.claims.fenced(claim) as rows:
            return statement(rows, claim.item_id)

    def _partner(self, key: object, make: Callable[[], Any]) -> Any:
        """A client that all threads share, made at its first use."""
        with self._lock:
            if key not in self._partners:
                self._partners[key] = self._opened.enter_context(closing(make()))
            return self._partners[key]

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
        images, missing, notes = gather(
            analysis.documents,
            fetcher=self._services.fetcher,
            stopped=stopped,
            patient=claim.failures + 1 < analyses.QUEUE.max_attempts,
            hand_over=lambda picture: backend.upload(picture, organization),
        )
        with self._services.claims.fenced(claim) as rows:
            analyses.note_images(rows, analysis.id, total=len(images) + len(missing), usable=len(images))
        if not images:
            reasons = "; ".join(f"{one.name}: {one.reason}" for one in missing[:3])
            raise BadInput(f"No usable image. {reasons}" if reasons else "The analysis names no image.")
        order = BatchOrder(
            organization_id=organization,
            user_query=analysis.user_query,
            images=tuple(images),
            missing=tuple(missing),
            notes=tuple(notes),
            urgent=analysis.connection.urgent,
        )
        batch_id = backend.start(order, analysis.reference)
        with self._services.claims.fenced(claim) as rows:
            analyses.submitted(rows, analysis.id, batch_id)
            self._services.claims.progress(rows, claim)
        told = {"analysis": analysis.vision_analysis_id, "batch": batch_id, "images": len(images)}
        log.info("submitted", extra=told)
        return batch_id

    # --- batch to report -----------------------------------------------------------------------------------------

    def _wait(self, claim: Claim, analysis: Analysis, batch_id: str, backend: AnalysisBackend) -> None:
        """
        Raises:
            StillWaiting: the batch is not completed.
        """
        try:
            status = backend.status(batch_id)
        except NotFound:
            self._fenced(claim, analyses.forget_batch)
            raise
        except UnreadableAnswer:
            self._forget_on_last_try(claim)
            raise
        if status.state is BatchState.COMPLETED:
            return
        reason = plain_text(status.error, 300)
        if status.state is BatchState.FAILED:
            self._fenced(claim, analyses.forget_batch)
            raise PartnerRefused(f"The analysis backend gave the batch up: {reason or 'it gave no reason'}")
        waited = analysis.waited or 0.0
        limit = model.BATCH_SECONDS if analysis.connection.urgent else UNHURRIED_SECONDS
        if waited > limit:
            self._fenced(claim, analyses.forget_batch)
            raise TimedOut(
                f"The analysis backend did not finish batch {batch_id} within {limit:,.0f} s "
                f"({status.done} of {status.total} images done{f'; {reason}' if reason else ''})"
            )
        # A twentieth of the time it has taken so far, or what the backend asks for.
        pause = min(max(FIRST_POLL, waited / 20, status.retry_after or 0.0), LONGEST_POLL, max(0.1, limit - waited))
        told = f"The analysis backend has not finished yet{f': {reason}' if reason else '.'}"
        raise StillWaiting(told, retry_after=pause)

    # --- report to customer --------------------------------------------------------------------------------------

    def _deliver(self, claim: Claim, analysis: Analysis, batch_id: str, backend: AnalysisBackend) -> None:
        connection = analysis.connection
        api: VisionAnalysisApi = self._partner(connection, lambda: api_of(self._services, connection))
        page_size = self._services.settings.vision_page_size
        # An earlier upload began and may have arrived: then the external API no longer lists the analysis. What a
        # backfill delivers anew is not listed in either case, so it is sent again.
        uncertain = analysis.upload_started_at is not None and not analysis.redelivery
        if not uncertain or api.is_unprocessed(analysis.vision_analysis_id, page_size=page_size):
            report = self._report(claim, batch_id, backend)
            self._fenced(claim, analyses.uploading)
            self._upload(claim, analysis, batch_id, api, report)
        with self._services.claims.fenced(claim) as rows:
            analyses.delivered(rows, analysis.id)
            self._services.claims.finish(rows, analyses.QUEUE, claim)
        log.info("delivered", extra={"analysis": analysis.vision_analysis_id, "batch": batch_id})

    def _report(self, claim: Claim, batch_id: str, backend: AnalysisBackend) -> bytes:
        """The report of a completed batch.

        Raises:
            PartnerUnavailable: the backend does not have the report, or it is not HTML.
        """
        try:
            return backend.report(batch_id)
        except (PartnerRefused, UnreadableAnswer) as error:
            if isinstance(error, PartnerRefused) and error.partner_status not in _WITHOUT_REPORT:
                raise
            self._forget_on_last_try(claim)
            raise PartnerUnavailable(error.public) from error

    def _forget_on_last_try(self, claim: Claim) -> None:
        """At the last try forget a batch about which the backend says nothing usable, so that a later execution orders
        a new one. An earlier try does not, or a backend without reports would be asked for batch after batch."""
        if claim.failures + 1 >= analyses.QUEUE.max_attempts:
            self._fenced(claim, analyses.forget_batch)

    def _upload(self, claim: Claim, analysis: Analysis, batch_id: str, api: VisionAnalysisApi, report: bytes) -> None:
        try:
            api.upload(
                html=report,
                # Of a foreign batch id, without characters that file names should not have.
                filename=f"report_{re.sub(r'[^A-Za-z0-9._-]', '_', batch_id)[:120]}.html",
                vision_analysis_id=analysis.vision_analysis_id,
                organization_id=analysis.organization_id,
            )
        except UncertainUpload:
            raise
        except ImgpipeError:
            # Refused, so it did not arrive, whatever the API lists at the next try.
            self._fenced(claim, analyses.not_uploaded)
            raise


def backend_at(services: Services, url: str, trusted: bool = False) -> AnalysisBackend:
    """The backend at `url`. BACKEND_API_KEY goes to our gateway, to the host of BACKEND_API_URL, and to backends that
    are `trusted`: see `ApiAccess.operators_backend`."""
    settings = services.settings
    timeout = settings.partner_timeout_seconds
    if _place(url) in {_place(settings.gateway_url), _place(settings.public_base_url)}:
        return AnalysisBackend(url, settings.backend_api_key or settings.admin_api_key, timeout=timeout)
    if trusted or _place(url)[:3] == _place(settings.backend_api_url)[:3]:
        return AnalysisBackend(url, settings.backend_api_key, timeout=timeout)
    # A cron job may name any other address: it does not get the key, and must not lead into the private network.
    return AnalysisBackend(url, guard=Guard.for_customers(settings), timeout=timeout)


def _place(url: str) -> tuple[str, str, int | None, str]:
    """(scheme, host, port, path) of an address, normalised: `http://localhost:8000/` is `http://127.0.0.1:8000`."""
    parts = urlsplit(url)
    host = "127.0.0.1" if parts.hostname in {"localhost", "::1"} else parts.hostname or ""
    port = parts.port or {"http": 80, "https": 443}.get(parts.scheme)
    return parts.scheme, host, port, parts.path.rstrip("/")


# --- the documents ----------------------------------------------------------------------------------------------------


def gather(
    documents: Sequence[Document],
    *,
    fetcher: Fetcher,
    stopped: Callable[[], ImgpipeError | None],
    patient: bool,
    hand_over: Callable[[ImageFile], str],
) -> tuple[list[ImageOrder], list[Missing], list[str]]:
    """Fetch everything and hand each image over. Returns the images that the backend has, what is missing and why, and
    notes for the report.

    Args:
        stopped: why to end, or None.
        patient: raise when a document cannot be fetched at this moment, because there will be another try; if False, it
            is left out.
        hand_over: gives an image to the backend and returns its id there.

    Raises:
        Retryable: see `patient`.
        ImgpipeError: that of `stopped`; or from `hand_over`: the backend is away, or refuses all images.
    """
    orders, missing, notes = list[ImageOrder](), list[Missing](), list[str]()
    policy = replace(DOWNLOAD, stopped=stopped)
    given_up = (Permanent,) if patient else (Permanent, Retryable)

    def fetched(document: Document, read: Callable[[bytes], _Value], most: int) -> tuple[_Value | None, str]:
        """What `read` makes of the document, or why there is nothing."""
        if not document.url:
            return None, "the list gives no usable address for it"
        try:
            return read(fetcher.fetch_bytes(document.url, policy, max_bytes=most)), ""
        except given_up as error:
            return None, error.public
        finally:
            if (why := stopped()) is not None:  # then the document is not to blame
                raise why

    descriptions: dict[str, str] = {}
    for document in documents:
        if document.holds_descriptions:
            texts, wrong = fetched(document, _parse, _DESCRIPTIONS_LIMIT)
            descriptions |= texts or {}
            if wrong:
                notes.append(f"The descriptions in {document.name} could not be used: {wrong}")
    in_any_case = {name.casefold(): text for name, text in descriptions.items()}
    images = [document for document in documents if not document.holds_descriptions]
    for extra in images[MOST_IMAGES:]:
        missing.append(Missing(extra.name, f"more than the {MOST_IMAGES} images that one analysis may have"))
    for document in images[:MOST_IMAGES]:
        picture, wrong = fetched(document, partial(_picture, document.name), IMAGE_BYTES)
        try:
            image_id = hand_over(picture) if picture else ""
        except (BadImage, TooLarge) as error:
            wrong = error.public
        if wrong:
            missing.append(Missing(document.name, wrong))
            continue
        description = descriptions.get(document.name, in_any_case.get(document.name.casefold(), ""))
        orders.append(ImageOrder(image_id, plain_text(description, _DESCRIPTION_LENGTH)))
    return orders, missing, notes


def _picture(name: str, data: bytes) -> ImageFile:
    from imgpipe_orchestration.imaging.reading.sniff import sniff

    return ImageFile(name, data, sniff(data, max_bytes=IMAGE_BYTES).mime)


def _parse(data: bytes) -> dict[str, str]:
    try:
        parsed = decoded(data)
    except ValueError as error:
        raise BadInput("it is not JSON") from error
    if not isinstance(parsed, dict):
        raise BadInput("it is not a JSON object of image name to description")
    texts = {str(name): str(text) for name, text in parsed.items() if isinstance(text, str | int | float)}
    if not texts and any(parsed.values()):  # e.g. the texts are one level deeper
        raise BadInput("no image has a text in it")
    return texts
