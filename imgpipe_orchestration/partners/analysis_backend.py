"""An analysis backend over HTTP: another imgpipe, or anything that serves the same routes.

    POST {base}/batch-analysis/images                multipart `files`, `organization_id`
    POST {base}/batch-analysis/batches               JSON; Idempotency-Key: the same order twice is one batch
    GET  {base}/batch-analysis/batches/{id}
    GET  {base}/batch-analysis/batches/{id}/report   text/html

The gateway's OpenAPI document describes them in full.
"""

from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any
from urllib.parse import quote

from imgpipe_orchestration.errors import BadImage, NotFound, PartnerRefused, PartnerUnavailable, UnreadableAnswer
from imgpipe_orchestration.partners.http import JsonApi, at_host
from imgpipe_orchestration.partners.retry import parse_retry_after
from imgpipe_orchestration.partners.ssrf import Guard

_NAME = "The analysis backend"
IMAGES = "/batch-analysis/images"
BATCHES = "/batch-analysis/batches"

_OF_THE_IMAGE = frozenset({400, 413, 415, 422})
"""HTTP statuses that refuse one image. Others (a refused key, a wrong address) concern all, and fail the analysis."""


class BatchState(StrEnum):
    """States of a batch at an analysis backend."""

    QUEUED = "queued"
    RUNNING = "running"
    COMPLETED = "completed"  # its report can be had
    FAILED = "failed"  # there will be no report; `error` says why


_OTHER_NAMES = {"pending": "queued", "processing": "running"}
"""What some backends call the contract's states."""


@dataclass(frozen=True, slots=True)
class BatchStatus:
    """What a backend says about a batch."""

    state: BatchState
    done: int = 0
    total: int = 0
    error: str = ""
    retry_after: float | None = None
    """Seconds after which asking again makes sense, if the backend said so."""


@dataclass(frozen=True, slots=True)
class ImageFile:
    """An image for a backend. `data` was recognised as an image; `name` is only a label."""

    name: str
    data: bytes
    mime: str


@dataclass(frozen=True, slots=True)
class ImageOrder:
    """An image of a batch: its id at the backend, and what the customer says it shows."""

    image_id: str
    description: str = ""


@dataclass(frozen=True, slots=True)
class Missing:
    """An image that could not be fetched or used, and why."""

    name: str
    reason: str


@dataclass(frozen=True, slots=True)
class BatchOrder:
    """What a backend is asked to do. `reference` names the order: sent twice, it is one batch."""

    reference: str
    organization_id: str
    user_query: str
    images: tuple[ImageOrder, ...]
    missing: tuple[Missing, ...] = ()
    notes: tuple[str, ...] = ()
    urgent: bool = True


class AnalysisBackend(JsonApi):
    """Takes images, analyses them as a batch, and gives a report."""

    def __init__(self, base_url: str, key: str = "", *, guard: Guard | None = None, timeout: float = 60.0) -> None:
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        super().__init__(at_host(_NAME, base_url), base_url, headers=headers, guard=guard, timeout=timeout)

    def upload(self, picture: ImageFile, organization_id: str) -> str:
        """Hand one image over; returns its id at the backend.

        Raises:
            BadImage: it refuses this image; says why.
            PartnerRefused: it refuses all images.
            UnreadableAnswer: the answer has no id.
            RateLimited, PartnerUnavailable: still failing after the tries.
        """
        from urllib3.filepost import encode_multipart_formdata

        body, content_type = encode_multipart_formdata(
            {"files": (picture.name, picture.data, picture.mime), "organization_id": organization_id}
        )
        try:
            answer = self.request("POST", IMAGES, body=body, headers={"Content-Type": content_type}).json(self.partner)
        except PartnerRefused as error:
            if error.partner_status in _OF_THE_IMAGE:
                raise BadImage(error.public, detail=error.detail) from error
            raise
        try:
            if refused := answer["rejected"]:
                raise BadImage(f"{self.partner} refused the image: {str(refused[0]['reason'])[:200]}")
            told = answer["images"][0]["image_id"]
        except (KeyError, IndexError, TypeError):
            told = None
        return self._id(told, "image")

    def start(self, order: BatchOrder) -> str:
        """Start a batch and return its id. The same order twice gives the same batch."""
        body = asdict(order)
        del body["reference"]
        if order.urgent:  # other backends need not know the word
            del body["urgent"]
        answer = self.request_json("POST", BATCHES, json_body=body, headers={"Idempotency-Key": order.reference})
        return self._id(answer.get("batch_id") if isinstance(answer, dict) else None, "batch")

    def status(self, batch_id: str) -> BatchStatus:
        """How far the batch is.

        Raises:
            NotFound: it knows no such batch.
        """
        try:
            reply = self.request("GET", f"{BATCHES}/{quote(batch_id, safe='')}")
        except PartnerRefused as error:
            if error.partner_status == 404:
                raise NotFound(f"The analysis backend does not know batch {batch_id[:100]!r}") from error
            raise
        answer = reply.json(self.partner)
        if not isinstance(answer, dict) or not isinstance(answer.get("status"), str):
            raise UnreadableAnswer(f"{self.partner} answered in a shape we do not know: no status")
        word = answer["status"].lower()
        try:
            state = BatchState(_OTHER_NAMES.get(word, word))
        except ValueError:
            unknown = f"The analysis backend says that the batch is {word[:40]!r}, which we do not know"
            raise PartnerUnavailable(unknown) from None
        reason = str(answer.get("error") or "")[:500]
        done, total = (
            count if isinstance(count, int) and not isinstance(count, bool) and count >= 0 else 0
            for count in (answer.get("done"), answer.get("total"))
        )
        return BatchStatus(state, done, total, reason, parse_retry_after(reply.headers))

    def report(self, batch_id: str) -> bytes:
        """The finished report, HTML.

        Raises:
            UnreadableAnswer: it is empty, not HTML, or past `http.ANSWER_LIMIT`.
        """
        reply = self.request("GET", f"{BATCHES}/{quote(batch_id, safe='')}/report")
        if not reply.is_html:
            raise UnreadableAnswer(f"{self.partner} sent something that is not an HTML report")
        return reply.content

    def _id(self, told: Any, what: str) -> str:
        if not isinstance(told, str | int) or isinstance(told, bool) or told == "":
            raise UnreadableAnswer(f"{self.partner} answered in a shape we do not know: no {what} id")
        return str(told)
