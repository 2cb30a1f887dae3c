"""The external Vision Analysis API: unprocessed analyses out, HTML reports in.

Its addresses come from a cron job. In production they are reached under the guard, as a link from outside is. Its token
is a tenant's; a partner may send it back in the body of an error, so it is taken out of what this client raises.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, Self
from urllib.parse import urlencode

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from imgpipe_orchestration.errors import ImgpipeError, PartnerUnavailable, UnreadableAnswer
from imgpipe_orchestration.partners.http import JsonApi
from imgpipe_orchestration.partners.retry import RetryPolicy
from imgpipe_orchestration.partners.ssrf import Guard

_NAME = "The Vision Analysis API"


class _Record(BaseModel):
    """A record of theirs: what we need, and whatever else they add."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class Document(_Record):
    """A file of an analysis. `document_name` is outside text: never a path."""

    document_id: str = ""
    document_path: str
    document_name: str = ""
    document_type: str = ""
    is_input: bool = True


class VisionAnalysis(_Record):
    """One analysis that somebody asked for."""

    vision_analysis_id: str = Field(min_length=1)
    vision_analysis_run_code: str = ""
    is_processed: bool = False
    organization_id: str = Field(min_length=1)
    organization_name: str = ""
    user_query: str = ""
    created_date: str = ""
    documents: tuple[Document, ...] = ()


class _Page(_Record):
    total: int | None = None
    vision_analysis: list[dict[str, Any]]


class _Listing(_Record):
    code: int = 200
    status: Literal["success"]
    data: _Page


@dataclass(frozen=True, slots=True)
class Malformed:
    """An entry of the listing that cannot be used, with the reason; the others are not its fault."""

    vision_analysis_id: str
    reason: str


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
        self._list = JsonApi(_NAME, get_url, headers=headers, timeout=timeout, policy=policy, guard=guard)
        self._upload = JsonApi(_NAME, post_url, headers=headers, timeout=timeout, policy=policy, guard=guard)

    def unprocessed(self, *, page_size: int = 50, most_pages: int = 1000) -> Iterator[VisionAnalysis | Malformed]:
        """All unprocessed analyses, page by page as they are consumed, none twice.

        Ends at `total`, at an empty page, or at a page that brings nothing new. A listing of more than `most_pages`
        is taken for one that never ends.

        Raises:
            PartnerUnavailable: the listing does not end; also as in `JsonApi.request_json`.
            PartnerRefused, RateLimited, UnreadableAnswer: as in `JsonApi.request_json`.
            Forbidden: the address is private and not allowed.
        """
        seen: set[str] = set()
        listed = 0
        for number in range(1, most_pages + 1):
            page = self._page(number, page_size)
            fresh = [entry for entry in page.vision_analysis if str(entry.get("vision_analysis_id")) not in seen]
            for entry in fresh:
                seen.add(str(entry.get("vision_analysis_id")))
                yield _analysis(entry)
            listed += len(page.vision_analysis)
            # Some say 0 where they do not know the total: then the empty page is the end.
            if not fresh or (page.total and listed >= page.total):
                return
        raise PartnerUnavailable(f"{_NAME} lists more than {most_pages} pages: its listing seems never to end")

    def is_unprocessed(self, vision_analysis_id: str, *, page_size: int = 50) -> bool:
        """Whether the API still waits for the report of this analysis; raises as `unprocessed`."""
        listed = self.unprocessed(page_size=page_size)
        return any(a.vision_analysis_id.casefold() == vision_analysis_id.casefold() for a in listed)

    def upload(self, *, vision_analysis_id: str, organization_id: str, filename: str, html: bytes) -> Any:
        """Deliver a report; the analysis counts as processed from then on. Returns the decoded answer.

        Raises:
            ImgpipeError: as in `JsonApi.request`.
        """
        from urllib3.filepost import encode_multipart_formdata

        fields: dict[str, Any] = {
            "organization_id": organization_id,
            "vision_analysis_id": vision_analysis_id,
            "file": (filename, html, "text/html"),
        }
        body, content_type = encode_multipart_formdata(fields)
        headers = {"Content-Type": content_type, "Accept": "application/json"}
        with self._without_token():
            reply = self._upload.request("POST", "", body=body, headers=headers)
            return reply.json(_NAME) if reply.content else None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._list.close()
        self._upload.close()

    @contextmanager
    def _without_token(self) -> Iterator[None]:
        try:
            yield
        except ImgpipeError as error:
            if error.detail and self._key:
                error.detail = error.detail.replace(self._key, "***")
            raise

    def _page(self, number: int, size: int) -> _Page:
        query = urlencode({"is_processed": "false", "page": number, "page_size": size})
        mark = "&" if "?" in self._list.base_url else "?"
        with self._without_token():
            answer = self._list.request_json("GET", mark + query, headers={"Content-Type": "application/json"})
        try:
            return _Listing.model_validate(answer).data
        except ValidationError as error:
            raise UnreadableAnswer(
                f"{_NAME} answered in a shape we do not know", detail=str(error.errors(include_input=False))[:500]
            ) from error


def _analysis(entry: dict[str, Any]) -> VisionAnalysis | Malformed:
    try:
        return VisionAnalysis.model_validate(entry)
    except ValidationError as error:
        fault = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, fault["loc"]))
        return Malformed(str(entry.get("vision_analysis_id", "")), f"{where}: {fault['msg']}")
