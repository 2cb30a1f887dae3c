"""An analysis backend over HTTP: another imgpipe, or anything that serves the same routes.

    POST {base}/batch-analysis/images                multipart `files`, `organization_id`
    POST {base}/batch-analysis/batches               JSON; Idempotency-Key: the same order twice is one batch
    GET  {base}/batch-analysis/batches/{id}
    GET  {base}/batch-analysis/batches/{id}/report   text/html

The gateway's OpenAPI document describes them in full.
"""

from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Annotated, Any
from urllib.parse import quote

from pydantic import ConfigDict, Field

from imgpipe_orchestration.errors import BadImage, NotFound, PartnerRefused, UnreadableAnswer
from imgpipe_orchestration.partners.http import JsonApi, at_host
from imgpipe_orchestration.partners.retry import parse_retry_after, whole
from imgpipe_orchestration.partners.ssrf import Guard

_NAME = "The analysis backend"
IMAGES = "/batch-analysis/images"
BATCHES = "/batch-analysis/batches"

_OF_THE_IMAGE = frozenset({400, 413, 415, 422})
"""HTTP statuses that refuse one image. Others (a refused key, a wrong address) concern all, and fail the analysis."""

_NO_SUCH_BATCH = frozenset({400, 404, 410, 422})
"""HTTP statuses that refuse a batch's id. Others (a refused key, a redirect) say nothing about the batch."""


class BatchState(StrEnum):
    """States of a batch at an analysis backend."""

    QUEUED = "queued"
    RUNNING = "running"
    COMPLETED = "completed"  # its report is available
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


# The body of an order. Its limits are those of our own backend, which checks them; others may have theirs.


@dataclass(frozen=True, slots=True)
class ImageOrder:
    """An image of a batch: its id at the backend, and what the customer says it shows."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    image_id: Annotated[str, Field(max_length=64)]
    description: Annotated[str, Field(max_length=4000, description="What the customer says it shows.")] = ""


@dataclass(frozen=True, slots=True)
class Missing:
    """An image that could not be fetched or used, and why."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    name: Annotated[str, Field(max_length=500)]
    reason: Annotated[str, Field(max_length=2000)]


@dataclass(frozen=True, slots=True)
class BatchOrder:
    """A batch to analyse. `missing` and `notes` are shown in the report."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    organization_id: Annotated[
        str, Field(min_length=1, max_length=200, description="Only images uploaded for it can be used.")
    ]
    images: Annotated[tuple[ImageOrder, ...], Field(min_length=1, max_length=1000)]
    user_query: Annotated[str, Field(max_length=4000, description="What the customer wants to know.")] = ""
    missing: Annotated[tuple[Missing, ...], Field(max_length=2000)] = ()
    notes: Annotated[tuple[str, ...], Field(max_length=100)] = ()
    model: Annotated[str, Field(max_length=100, description="One of /available_models; default the first.")] = ""
    urgent: Annotated[bool, Field(description="false: it may take a day, and its calls cost half.")] = True


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
            if refused := answer.get("rejected"):
                raise BadImage(f"{self.partner} refused the image: {str(refused[0]['reason'])[:200]}")
            told = answer["images"][0]["image_id"]
        except (AttributeError, KeyError, IndexError, TypeError):
            told = None
        return self._id(told, "image")

    def start(self, order: BatchOrder, reference: str) -> str:
        """Start a batch and return its id. `reference` names the order: sent twice, it is one batch."""
        usual = {"model": "", "urgent": True}  # other backends need not know these words
        body = {name: value for name, value in asdict(order).items() if name not in usual or value != usual[name]}
        answer = self.request_json("POST", BATCHES, json_body=body, headers={"Idempotency-Key": reference})
        return self._id(answer.get("batch_id") if isinstance(answer, dict) else None, "batch")

    def status(self, batch_id: str) -> BatchStatus:
        """How far the batch is.

        Raises:
            NotFound: it knows no such batch, or takes no such id.
            UnreadableAnswer: no state that we know.
        """
        try:
            reply = self.request("GET", f"{BATCHES}/{quote(batch_id, safe='')}")
        except PartnerRefused as error:
            if error.partner_status in _NO_SUCH_BATCH:
                told = f"The analysis backend does not know batch {batch_id[:100]!r} (HTTP {error.partner_status})"
                raise NotFound(told, detail=error.detail) from error
            raise
        answer = reply.json(self.partner)
        if not isinstance(answer, dict) or not isinstance(answer.get("status"), str):
            raise UnreadableAnswer(f"{self.partner} answered in a shape we do not know: no status")
        word = answer["status"].lower()
        try:
            state = BatchState(_OTHER_NAMES.get(word, word))
        except ValueError:
            unknown = f"The analysis backend says that the batch is {word[:40]!r}, which we do not know"
            raise UnreadableAnswer(unknown) from None
        reason = str(answer.get("error") or "")[:500]
        done, total = (whole(str(answer.get(name))) or 0 for name in ("done", "total"))
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
