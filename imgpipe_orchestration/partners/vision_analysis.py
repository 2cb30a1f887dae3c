"""The external Vision Analysis API: unprocessed analyses come from it, HTML reports go to it.

A cron job gives its addresses, so in production they are checked by a `Guard` like untrusted links. Its token belongs
to a tenant. It is removed from this client's errors, because a partner may return it in the body of an error.
"""

import hashlib
import json
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal
from urllib.parse import unquote_plus, urlencode, urlsplit, urlunsplit

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator, model_validator

from imgpipe_orchestration.errors import ImgpipeError, PartnerRefused, PartnerUnavailable, UnreadableAnswer
from imgpipe_orchestration.partners.http import JsonApi, at_host
from imgpipe_orchestration.partners.json_text import decoded, problem_in
from imgpipe_orchestration.partners.reply import Reply
from imgpipe_orchestration.partners.retry import RetryPolicy, whole
from imgpipe_orchestration.partners.ssrf import Guard
from imgpipe_orchestration.telemetry.logs import logger

_NAME = "The Vision Analysis API"
_ASKED = ("is_processed", "page", "page_size")
"""The query parameters of a page; they replace those in the address."""
_FAILED = frozenset({"error", "fail", "failed", "failure"})
_LOOKS = 6
"""How often a listing that keeps changing is read."""
_MOST_PAGES = 1_000
_MOST_ENTRIES = 200_000
_MOST_DOCUMENTS = 20_000
"""Entries of a listing, and files of one of them, at most. An answer within its limit of bytes has room for ten million
files, which take 6 GB and minutes once each is an object."""

log = logger(__name__)


class _Record(BaseModel):
    """A record of the API: unknown fields are ignored, and null means the same as a missing field."""

    model_config = ConfigDict(extra="ignore", frozen=True, coerce_numbers_to_str=True)

    @model_validator(mode="before")
    @classmethod
    def _without_nulls(cls, given: Any) -> Any:
        return {name: v for name, v in given.items() if v is not None} if isinstance(given, dict) else given


class Document(_Record):
    """A file of an analysis. `document_name` is untrusted text, never a path. `document_path` is empty if unusable."""

    document_path: str = ""
    document_name: str = ""
    document_type: str = ""
    is_input: bool = True


Id = Annotated[str, Field(min_length=1, max_length=500)]


class VisionAnalysis(_Record):
    """One requested analysis. Its ids are sent back exactly as they came."""

    vision_analysis_id: Id
    vision_analysis_run_code: str = ""
    is_processed: bool = False
    organization_id: Id
    user_query: str = ""
    created_date: str = ""
    documents: tuple[Document, ...] = ()

    @field_validator("vision_analysis_id", "organization_id")
    @classmethod
    def _can_be_kept(cls, value: str) -> str:
        if not value.strip() or "\0" in value or any("\ud800" <= letter <= "\udfff" for letter in value):
            raise ValueError("an id must have characters, all of them storable")
        return value

    @field_validator("created_date", mode="before")
    @classmethod
    def _or_unknown(cls, value: Any) -> str:
        return value if isinstance(value, str) else ""

    @field_validator("documents", mode="before")
    @classmethod
    def _each_by_itself(cls, value: Any) -> Any:
        if not isinstance(value, list):
            return value
        if len(value) > _MOST_DOCUMENTS:
            raise ValueError(f"there are more than {_MOST_DOCUMENTS:,} of them")
        return [_document(entry) for entry in value if entry is not None]


class _Page(BaseModel):
    # Null means an empty list; a missing field is an error.
    vision_analysis: list[Any] | None
    total: Any = None


class _Listing(_Record):
    """One page of the listing."""

    status: Annotated[Literal["success"], BeforeValidator(lambda said: said.lower() if isinstance(said, str) else said)]
    data: _Page


@dataclass(frozen=True, slots=True)
class Malformed:
    """An entry of the listing that cannot be used, with the reason; other entries can.

    `organization_id` is empty where the entry has none.
    """

    vision_analysis_id: str
    reason: str
    organization_id: str = ""


def _analysis_of(entry: dict[str, Any]) -> VisionAnalysis | Malformed:
    """An entry of the listing as a record."""
    try:
        return VisionAnalysis.model_validate(entry)
    except ValidationError as error:
        ids = (entry.get("vision_analysis_id"), entry.get("organization_id"))
        analysis, organization = (str(one) if isinstance(one, str | int) else "" for one in ids)
        return Malformed(analysis, problem_in(error, 1), organization)


def _document(entry: Any) -> Document:
    """A document; one that cannot be parsed has no address, and counts as a missing image."""
    try:
        return Document.model_validate(entry)
    except ValidationError:
        name = entry.get("document_name") if isinstance(entry, dict) else None
        return Document(document_name=name if isinstance(name, str) else "")


def _identity_of(found: VisionAnalysis | Malformed, entry: dict[str, Any]) -> bytes:
    """What is the same for two entries of one analysis. A digest, because an entry may be as long as a page."""
    named = json.dumps([found.organization_id.casefold(), found.vision_analysis_id.casefold()])
    if isinstance(found, Malformed) and not found.vision_analysis_id:
        named = json.dumps(entry, sort_keys=True)
    return hashlib.sha256(named.encode()).digest()


class UncertainUpload(PartnerUnavailable):
    """An upload broke off, got no answer or a 5xx; the report may have arrived."""


class Unfinished(PartnerUnavailable):
    """There was no time to read the whole list."""


class VisionAnalysisApi:
    """Client for one organization's pair of addresses."""

    def __init__(
        self,
        get_url: str,
        post_url: str,
        api_key: str,
        *,
        guard: Guard | None,
        timeout: float = 60.0,
        policy: RetryPolicy | None = None,
    ) -> None:
        self._key = api_key
        headers = {"Authorization": f"Bearer {api_key}"}
        parts = urlsplit(get_url)
        pairs = filter(None, parts.query.split("&"))
        self._query = [pair for pair in pairs if unquote_plus(pair.partition("=")[0]) not in _ASKED]
        place = urlunsplit(parts._replace(query="", fragment=""))
        self._name = at_host(_NAME, place)
        self._list = JsonApi(self._name, place, headers=headers, timeout=timeout, policy=policy, guard=guard)
        # Only a caller that asks whether a report has arrived may repeat it.
        once = replace(self._list.policy, attempts=1)
        self._upload = JsonApi(
            at_host(_NAME, post_url), post_url, headers=headers, timeout=timeout, policy=once, guard=guard
        )

    def unprocessed(self, *, page_size: int = 50, seconds: float = math.inf) -> Iterator[VisionAnalysis | Malformed]:
        """All unprocessed analyses, each once; pages are read as they are needed.

        Ends at a page with nothing new, or one that is refused when as many as `total` are listed. A listing of more
        than `_MOST_PAGES` is considered endless, as is one of more than `_MOST_ENTRIES`.

        Args:
            seconds: after which no further page is read.

        Raises:
            Unfinished: there are, or may be, further pages.
            PartnerUnavailable: the listing does not end; also as in `JsonApi.request_json`.
            PartnerRefused, RateLimited, UnreadableAnswer: as in `JsonApi.request_json`.
            Forbidden: the address is private and not allowed.
        """
        seen: set[bytes] = set()
        listed, total = 0, math.inf
        until = time.monotonic() + seconds
        for number in range(1, _MOST_PAGES + 1):
            known = len(seen)
            page, total = self._page(number, page_size, complete=listed >= total)
            listed += len(page)
            if listed > _MOST_ENTRIES:
                raise PartnerUnavailable(f"{self._name} lists more than {_MOST_ENTRIES:,} entries")
            for entry in page:
                found = _analysis_of(entry)
                key = _identity_of(found, entry)
                if key in seen:
                    continue
                seen.add(key)
                # Some APIs ignore the filter for unprocessed ones.
                if not (entry.get("is_processed") is True if isinstance(found, Malformed) else found.is_processed):
                    yield found
            if len(seen) == known:
                return
            if time.monotonic() > until:
                raise Unfinished(f"{self._name} needs more than {seconds:g} s to list what is unprocessed")
        raise PartnerUnavailable(f"{self._name} lists more than {_MOST_PAGES:,} pages: its listing seems never to end")

    def is_unprocessed(self, vision_analysis_id: str, *, page_size: int = 50) -> bool:
        """Whether the API still waits for the report of this analysis; raises as `unprocessed`.

        When an analysis becomes processed while we read, later ones move up, and we skip one at a page's end. So a
        listing without this analysis counts only if the next listing has all that this one had.
        """
        wanted = vision_analysis_id.casefold()
        before: set[str] | None = None
        for _ in range(_LOOKS):
            listed = {a.vision_analysis_id.casefold() for a in self.unprocessed(page_size=page_size)}
            if wanted in listed:
                return True
            if before is not None and before <= listed:
                return False
            before = listed
        raise PartnerUnavailable(f"{self._name} changes its listing faster than it can be read")

    def upload(self, *, vision_analysis_id: str, organization_id: str, filename: str, html: bytes) -> None:
        """Deliver a report, after which the analysis counts as processed.

        It is sent once. Any 2xx answer is a success, unless it is a JSON error or a web page. After one of these, a 5xx
        or no answer the report may have arrived: see `is_unprocessed`. All tries, of any process, have the same
        Idempotency-Key, because a worker that froze before sending cannot know that another one has delivered.

        Args:
            filename: identifies the batch, and with it the content.

        Raises:
            UncertainUpload: the report may have arrived.
            ImgpipeError: as in `JsonApi.request`; it has not arrived.
        """
        from urllib3.filepost import encode_multipart_formdata

        ids = {"organization_id": organization_id, "vision_analysis_id": vision_analysis_id}
        body, content_type = encode_multipart_formdata({**ids, "file": (filename, html, "text/html")})
        named = json.dumps([organization_id, vision_analysis_id, filename])
        key = f"report-{hashlib.sha256(named.encode()).hexdigest()[:32]}"
        headers = {"Content-Type": content_type, "Accept": "application/json", "Idempotency-Key": key}
        with self._reported():
            try:
                _refuse_error(self._upload.partner, self._upload.request("POST", "", body=body, headers=headers))
            except PartnerUnavailable as error:
                raise UncertainUpload(error.public, detail=error.detail, retry_after=error.retry_after) from error

    def close(self) -> None:
        """Close the connections."""
        self._list.close()
        self._upload.close()

    @contextmanager
    def _reported(self) -> Iterator[None]:
        """Takes the token out of an error, and writes the error into the log."""
        try:
            yield
        except ImgpipeError as error:
            if error.detail and self._key:
                error.detail = error.detail.replace(self._key, "***")
            # The specification's words, by which operators search their logs.
            log.warning("API returned no usable answer", extra={"error": error.public})
            raise

    def _page(self, number: int, size: int, *, complete: bool) -> tuple[list[dict[str, Any]], float]:
        """The entries of a page, and how many all pages have (infinite if it does not say). `complete`: that many were
        listed before it."""
        asked = urlencode(dict(zip(_ASKED, ("false", number, size), strict=True)))
        query = "&".join([*self._query, asked])
        with self._reported():
            try:
                answer = self._list.request_json("GET", f"?{query}", headers={"Content-Type": "application/json"})
            except PartnerRefused as error:
                status = error.partner_status or 0
                if number > 1 and (status == 404 or (complete and 400 <= status < 500 and status not in {401, 403})):
                    return [], math.inf  # some APIs refuse a page past the last one
                raise
            try:
                page = _Listing.model_validate(answer).data
            except ValidationError as error:
                how, detail = "in a shape we do not know", str(error.errors(include_input=False))
                if _tells_of_error(answer):
                    how, detail = "with an error", json.dumps(answer)
                raise UnreadableAnswer(f"{self._name} answered {how}", detail=detail[:500]) from error
        entries = [e if isinstance(e, dict) else {"": e} for e in page.vision_analysis or [] if e is not None]
        total = whole(str(page.total))
        return entries, math.inf if total is None else total


def _refuse_error(partner: str, reply: Reply) -> None:
    """Raise when a 2xx answer is JSON that reports an error, or a web page (mostly a proxy's login). The contract does
    not specify the answer any further."""
    try:
        what = "an error" if _tells_of_error(decoded(reply.content)) else ""
    except ValueError:
        what = "a web page" if reply.is_html else ""
    if what:
        raise PartnerUnavailable(
            f"{partner} answered with {what} (HTTP {reply.status})",
            detail=reply.content[:1000].decode(errors="replace"),
            partner_status=reply.status,
        )


def _tells_of_error(answer: Any) -> bool:
    """Whether an answer reports a failure, whatever its HTTP status: by `status` (JSend has two words for it), by
    `success`, or by `code`, which is 200 in the contract."""
    if not isinstance(answer, dict):
        return False
    code = str(answer.get("code"))
    failed = str(answer.get("status")).casefold() in _FAILED or answer.get("success") is False
    return failed or 400 <= (whole(code) or 0) < 600
