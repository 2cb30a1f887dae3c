"""Works on queued batches of our own backend: shows each image to the vision model, then writes the report.

Each answer is committed at once, so a batch that is taken up again only asks for the missing ones. The ledger keeps
answers from being bought twice.
"""

from __future__ import annotations

import threading
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from imgpipe_orchestration.billing.batches import Question
from imgpipe_orchestration.billing.calls import Answer, Buyer, PaidCall, Purchase, first_answer, nobody
from imgpipe_orchestration.errors import (
    BackendUnavailable,
    BadImage,
    ImageTooSlow,
    LeaseLost,
    NotFound,
    Permanent,
    Retryable,
)
from imgpipe_orchestration.moderation.judging import admit
from imgpipe_orchestration.partners.models import Choice
from imgpipe_orchestration.partners.openai import Query, json_schema
from imgpipe_orchestration.storage.claims import Claim
from imgpipe_orchestration.storage.made_once import made_once
from imgpipe_orchestration.storage.work import Outcome, Shares, drain, working_as
from imgpipe_orchestration.telemetry import tracing
from imgpipe_orchestration.telemetry.logs import logger
from imgpipe_orchestration.vision_reports import batches, inspection
from imgpipe_orchestration.vision_reports.batches import Batch, BatchImage
from imgpipe_orchestration.vision_reports.lifecycle import FINDINGS, finding_number, words_of

if TYPE_CHECKING:
    from imgpipe_orchestration.imaging.measuring import Look
    from imgpipe_orchestration.wiring.services import Services

log = logger(__name__)

REPORT_BYTES = 8_000_000
"""Size of the largest report."""
THREADS, SHARE = 16, 4
"""Batches that a run works on at once, and how many of them are one organization's."""
PARALLEL_CALLS = 8
"""Calls of the vision model at once for one organization, in one run. Others have one more between them."""
_PREPARED = 4
"""Images that are prepared while all calls are under way."""
VIEW_SIDE = 1280
"""Longest side of the view for the model and the report, pixels; small defects are still visible at this size."""
_DETAIL = "high"


@dataclass(frozen=True, slots=True)
class _Look:
    """An image's view, what was measured of it, and what the model is asked about it."""

    view: bytes
    measured: dict[str, Any]
    query: Query[inspection.Inspection]
    buyer: Buyer


class BatchWorker:
    """Works on batches, with one pool of threads that call the vision model for all batches of a run."""

    def __init__(self, services: Services, opened: ExitStack) -> None:
        self._services = services
        self._bucket = services.vision_bucket
        self._looks = ThreadPoolExecutor(PARALLEL_CALLS + _PREPARED, thread_name_prefix="vision-look")
        opened.callback(self._looks.shutdown, cancel_futures=True)
        self._turns = Shares(PARALLEL_CALLS + _PREPARED)
        self._calls = Shares(PARALLEL_CALLS + 1)
        self.interrupted = threading.Event()
        """The run is cancelled or its worker stops, or a thread ended with an error: nothing more is begun."""

    # --- one batch -----------------------------------------------------------------------------------------------

    def work(self, claim: Claim) -> None:
        """Look at all images of a claimed batch and write its report."""
        with self._services.claims.fenced(claim) as rows:
            batches.running(rows, claim.item_id)
            batch = batches.load(rows, claim.item_id)
        log.info("batch begun", extra={"batch": str(batch.batch_id), "images": len(batch.images)})
        if not batch.urgent:
            self._fetch_at_half_price(batch)
        self._look_at_all(claim, batch)
        with self._services.claims.fenced(claim) as rows:
            batch = batches.load(rows, claim.item_id)
        if not any(image.status == "done" for image in batch.images):
            reason = next((image.error for image in batch.images if image.error), "no image")
            raise BadImage(f"No image of the batch could be analysed: {reason}")
        self._report(claim, self._reviewed(claim, batch))

    def _look_at_all(self, claim: Claim, batch: Batch) -> None:
        """Get the answers of all images that have none yet.

        Raises:
            Retryable: an image failed for now; the answers of the others are committed.
        """
        look = tracing.carried(self._look)

        def begin(image: BatchImage) -> Future[None]:
            # Not all into the pool at once: the one image of another's batch would wait behind them.
            place = ExitStack()
            place.enter_context(self._turns.place(batch.organization_id))
            future = self._looks.submit(look, claim, batch, image)
            future.add_done_callback(lambda _: place.close())
            return future

        futures = [(image, begin(image)) for image in batch.images if image.status == "waiting"]
        later: list[tuple[BatchImage, Retryable]] = []
        for image, future in futures:
            try:
                future.result()
            except Retryable as error:
                later.append((image, error))
            except LeaseLost:
                for _, other in futures:
                    other.cancel()
                raise
            except Permanent as error:
                self._give_up(claim, batch, image, error.public)
        if not later:
            return
        held = next((error for _, error in later if not error.spends_attempt), None)
        if held or claim.failures + 1 < batches.QUEUE.max_attempts:
            raise held or later[0][1]  # while some images have to wait, the others' errors spend no attempt
        # At the last attempt the report is written about the others, and lists these as missing.
        for image, reason in later:
            self._give_up(claim, batch, image, reason.public)

    def _look(self, claim: Claim, batch: Batch, image: BatchImage) -> None:
        choices = self._choices(batch)
        if not choices:  # before anything is decoded
            raise nobody("report")
        look = self._prepared(batch, image)

        def ask(choice: Choice) -> Answer:
            def purchase() -> Purchase:
                seen = self._services.openai(choice.provider).answer(look.query, model=choice.model)
                return Purchase(seen.usage, inspection.accepted(seen.value))

            return self._services.ledger.buy(self._call(look, choice), purchase, buyer=look.buyer)

        with self._calls.place(batch.organization_id):
            if self.interrupted.is_set():
                raise BackendUnavailable("The run was stopped.")
            _, answer = first_answer(choices, ask, task="report")
        with self._services.claims.fenced(claim) as rows:
            analysis = {**answer.value, "model": answer.usage.model, "standin": answer.usage.standin}
            kept = {"measured": look.measured, "analysis": analysis, "view_bytes": len(look.view)}
            batches.looked_at(rows, batch.id, image.position, status="done", error=None, **kept)

    def _fetch_at_half_price(self, batch: Batch) -> None:
        """Have the answers in the ledger when the images are looked at.

        Raises:
            InBatch: they are not there yet.
        """
        choice = next(iter(self._choices(batch)), None)
        if choice is None or not self._services.models.takes_batches(choice.provider):
            return

        def question(image: BatchImage) -> Question | None:
            try:
                look = self._prepared(batch, image)
            except (ImageTooSlow, Permanent):
                return None  # looking at it finds that as well
            return Question(self._call(look, choice), look.query.body(choice.model), look.buyer)

        def questions() -> list[Question]:
            waiting = [image for image in batch.images if image.status == "waiting"]
            return [asked for asked in self._looks.map(question, waiting) if asked]

        def read(call: PaidCall, body: dict[str, Any]) -> Purchase:
            seen = self._services.openai(call.provider).batched_answer(body, self._shape, call.model)
            return Purchase(seen.usage, inspection.accepted(seen.value))

        self._services.half_price.fetch(f"{batches.QUEUE.name}/{batch.id}", "responses", questions, read)

    def _choices(self, batch: Batch) -> list[Choice]:
        return sorted(self._services.models.choices("report"), key=lambda one: one.model != batch.model)

    @made_once
    def _shape(self) -> type[inspection.Inspection]:
        return inspection.shape(self._services.prompts["report"])

    def _prepared(self, batch: Batch, image: BatchImage) -> _Look:
        """What is asked about an image, whose view is stored."""
        from imgpipe_orchestration.imaging.measuring import look

        seen = self._services.workshop.call(look, self._stored(image.object_key, image.bytes), side=VIEW_SIDE)
        self._bucket.put(_view_key(batch, image), seen.preview, content_type="image/jpeg")
        prompt, measured = self._services.prompts["report"], measured_of(seen)
        asked = inspection.question(prompt, batch.user_query, image.name, image.description, measured)
        buyer = Buyer("vision_reports", f"vision_batches/{batch.id}/{image.position}", batch.organization_id)
        query = Query(asked, self._shape, seen.preview, _DETAIL, prompt.instructions())
        return _Look(seen.preview, measured, query, buyer)

    def _call(self, look: _Look, choice: Choice) -> PaidCall:
        return PaidCall.of(
            choice.provider,
            "responses",
            choice.model,
            inputs=[look.view, look.query.instructions or "", look.query.prompt],
            parameters={"detail": _DETAIL, "schema": json_schema(self._shape)},
        )

    def _reviewed(self, claim: Claim, batch: Batch) -> Batch:
        """The batch without findings that a person rejected.

        Raises:
            AwaitsReview: a finding is held until a person has decided.
        """
        lists = {image.position: image.analysis["findings"] for image in batch.images if image.analysis}
        found = {
            finding_number(batch.id, position, index): (findings, finding)
            for position, findings in lists.items()
            for index, finding in enumerate(findings)
        }
        words = {number: words_of(finding) for number, (_, finding) in found.items()}
        rejected = admit(self._services, claim.owner, FINDINGS, words)
        for findings, finding in map(found.__getitem__, rejected):
            findings.remove(finding)
        if rejected:
            batch.notes.append(f"Findings left out after a review: {len(rejected)}.")
        return batch

    def _give_up(self, claim: Claim, batch: Batch, image: BatchImage, reason: str) -> None:
        with self._services.claims.fenced(claim) as rows:
            batches.looked_at(rows, batch.id, image.position, status="failed", error=reason)

    def _report(self, claim: Claim, batch: Batch) -> None:
        from imgpipe_orchestration.vision_reports import report

        html = report.write(
            batch,
            picture=lambda image: self._stored(_view_key(batch, image), image.view_bytes),
            limit=REPORT_BYTES,
        )
        key = f"reports/{batch.batch_id}.html"
        self._bucket.put(key, html, content_type="text/html; charset=utf-8")
        with self._services.claims.fenced(claim) as rows:
            batches.reported(rows, batch.id, key, len(html))
            self._services.claims.finish(rows, batches.QUEUE, claim)
        self._bucket.discard(_view_key(batch, image) for image in batch.images)
        log.info("batch reported", extra={"batch": str(batch.batch_id), "bytes": len(html)})

    def _stored(self, key: str, size: int | None) -> bytes:
        """An object that was stored; `size` in bytes, if it is known.

        Raises:
            Retryable: the bucket does not have it, or not whole, as after a failover of the store.
        """
        try:
            return self._bucket.get(key, size=size)
        except NotFound as gone:
            raise Retryable(gone.public, detail=gone.detail) from gone


def measured_of(seen: Look) -> dict[str, Any]:
    """The figures of an image, as its batch and the report have them."""
    measured = seen.values["measured"]
    return {
        "width": measured["width"],
        "height": measured["height"],
        "format": seen.format,
        "sharpness": measured["sharpness"],
        **measured["exposure"],
        "colours": [colour["hex"] for colour in seen.values["dominant_colors"][:4]],
        "notes": seen.notes,
    }


def is_due(services: Services) -> bool:
    """Whether a batch waits."""
    return bool(services.claims.due_partitions(batches.QUEUE, limit=1))


def work_on_all(services: Services, owner: str) -> Outcome:
    """Work on all due batches, THREADS at once, until none is due."""
    claims = services.claims
    with working_as(claims, owner), ExitStack() as opened:
        worker = BatchWorker(services, opened)
        stop = worker.interrupted
        return drain(claims, batches.QUEUE, owner, worker.work, threads=THREADS, share=SHARE, interrupted=stop)


def _view_key(batch: Batch, image: BatchImage) -> str:
    return f"views/{batch.batch_id}/{image.position}.jpg"
