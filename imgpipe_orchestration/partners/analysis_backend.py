"""An analysis backend over HTTP: another imgpipe, or anything that serves the same routes.

    POST {base}/batch-analysis/images                multipart `files`, `organization_id`
    POST {base}/batch-analysis/batches               JSON; Idempotency-Key: the same order twice is one batch
    GET  {base}/batch-analysis/batches/{id}
    GET  {base}/batch-analysis/batches/{id}/report   text/html

The gateway's OpenAPI document describes them in full.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from imgpipe_orchestration.errors import PartnerRefused, UnreadableAnswer
from imgpipe_orchestration.partners.http import JsonApi, at_host
from imgpipe_orchestration.partners.retry import parse_retry_after
from imgpipe_orchestration.partners.ssrf import Guard

_NAME = "The analysis backend"
IMAGES = "/batch-analysis/images"
BATCHES = "/batch-analysis/batches"


@dataclass(frozen=True, slots=True)
class RemoteStatus:
    """What the backend says about a batch. `status` is the backend's term, in lower case."""

    status: str
    done: int
    total: int
    error: str
    retry_after: float | None


class AnalysisBackendApi:
    """Client of one backend."""

    def __init__(self, base_url: str, key: str = "", *, guard: Guard | None = None, timeout: float = 60.0) -> None:
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._name = at_host(_NAME, base_url)
        self._api = JsonApi(self._name, base_url, headers=headers, guard=guard, timeout=timeout)

    def upload(self, image: bytes, *, filename: str, media_type: str, organization_id: str) -> str:
        """Upload one image; returns its id.

        Raises:
            PartnerRefused: the backend does not accept it; says why.
            UnreadableAnswer: the answer has no id.
            RateLimited, PartnerUnavailable: still failing after the tries.
        """
        from urllib3.filepost import encode_multipart_formdata

        body, content_type = encode_multipart_formdata(
            {"files": (filename, image, media_type), "organization_id": organization_id}
        )
        answer = self._api.request("POST", IMAGES, body=body, headers={"Content-Type": content_type}).json(self._name)
        try:
            if refused := answer["rejected"]:
                raise PartnerRefused(f"{self._name} refused the image: {str(refused[0]['reason'])[:200]}")
            told = answer["images"][0]["image_id"]
        except (KeyError, IndexError, TypeError):
            told = None
        return self._id(told, "image")

    def start(self, order: dict[str, Any], *, reference: str) -> str:
        """Start a batch; returns its id.

        Args:
            order: the JSON body, see the OpenAPI document.
            reference: the Idempotency-Key.
        """
        answer = self._api.request_json("POST", BATCHES, json_body=order, headers={"Idempotency-Key": reference})
        return self._id(answer.get("batch_id") if isinstance(answer, dict) else None, "batch")

    def status(self, batch_id: str) -> RemoteStatus:
        """How far a batch is.

        Raises:
            PartnerRefused: with `partner_status` 404 when the backend does not know it.
        """
        reply = self._api.request("GET", f"{BATCHES}/{quote(batch_id, safe='')}")
        answer = reply.json(self._name)
        if not isinstance(answer, dict) or not isinstance(answer.get("status"), str):
            raise UnreadableAnswer(f"{self._name} answered in a shape we do not know: no status")
        return RemoteStatus(
            status=answer["status"].lower(),
            done=_whole(answer.get("done")),
            total=_whole(answer.get("total")),
            error=str(answer.get("error") or "")[:500],
            retry_after=parse_retry_after(reply.headers),
        )

    def report(self, batch_id: str) -> bytes:
        """The finished report, HTML.

        Raises:
            UnreadableAnswer: it is empty, not HTML, or past `http.ANSWER_LIMIT`.
        """
        reply = self._api.request("GET", f"{BATCHES}/{quote(batch_id, safe='')}/report")
        if not reply.is_html:
            raise UnreadableAnswer(f"{self._name} sent something that is not an HTML report")
        return reply.content

    def _id(self, told: Any, what: str) -> str:
        if not isinstance(told, str | int) or isinstance(told, bool) or told == "":
            raise UnreadableAnswer(f"{self._name} answered in a shape we do not know: no {what} id")
        return str(told)

    def close(self) -> None:
        """Close the connections."""
        self._api.close()


def _whole(value: Any) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else 0
