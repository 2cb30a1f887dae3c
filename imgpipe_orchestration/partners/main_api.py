"""The main API, which owns the uploads: temp files come from it and callbacks go to it.

Contract: `/api/media/complete/{id}`, `/api/media/cleanup/{id}`, temp files at their `image_path`. In the embedded
stack the gateway serves these routes as the main API.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Self

from imgpipe_orchestration.errors import BadInput, TooLarge, UnreadableAnswer
from imgpipe_orchestration.partners.http import JsonApi
from imgpipe_orchestration.partners.reply import AnswerTooLong, Reply
from imgpipe_orchestration.partners.retry import RetryPolicy
from imgpipe_orchestration.partners.signature import HEADER, sign

if TYPE_CHECKING:
    from imgpipe_orchestration.settings import Settings

_NAME = "The main API"
_TEMP_PATH = re.compile(r"(/[\w.~+-]+)+")


class MainApi:
    """Client of the main API."""

    def __init__(
        self, base_url: str, api_key: str, *, timeout: float = 60.0, policy: RetryPolicy | None = None
    ) -> None:
        self._key = api_key
        self._api = JsonApi(
            _NAME, base_url, headers={"Authorization": f"Bearer {api_key}"}, timeout=timeout, policy=policy
        )

    @classmethod
    def from_settings(cls, settings: Settings) -> Self:
        return cls(settings.main_api_url, settings.main_api_key, timeout=settings.partner_timeout_seconds)

    def complete(self, pending_image_id: int, payload: Mapping[str, Any]) -> Any:
        """Report an image as done; returns the decoded answer.

        Equal payloads are the same report and have the same Idempotency-Key. Another payload needs another key, or a
        server that honours keys would repeat its earlier answer or refuse it.

        Args:
            payload: the rich body of the contract; sent with sorted keys, so that equal payloads have equal signatures.

        Raises:
            PartnerRefused: `partner_status` 404 for an unknown image, 409 for one that was cleaned up.
            PartnerUnavailable, RateLimited: worth another try.
        """
        body = json.dumps(payload, sort_keys=True, separators=(",", ":")).encode()
        headers = {
            "Content-Type": "application/json",
            "Accept": "application/json",
            "Idempotency-Key": f"complete-{int(pending_image_id)}-{hashlib.sha256(body).hexdigest()[:32]}",
            HEADER: sign(body, self._key),
        }
        path = f"/api/media/complete/{int(pending_image_id)}"
        return self._api.request("POST", path, body=body, headers=headers).json(_NAME)

    def cleanup(self, pending_image_id: int) -> Any:
        """Report an image as failed for good, which removes its temp file; raises as `complete`."""
        return self._api.request_json("DELETE", f"/api/media/cleanup/{int(pending_image_id)}")

    def fetch_temp(self, image_path: str, *, limit: int) -> bytes:
        """The bytes of a temp file.

        Args:
            image_path: as in `pending_images`, e.g. "/temp_images/profiles/....jpg".
            limit: largest accepted file, bytes.

        Raises:
            BadInput: not a plain absolute path, by which the bearer key could be sent to another host.
            PartnerRefused: `partner_status` 404 when the file is gone.
            TooLarge: past `limit`.
            UnreadableAnswer: an error page or nothing came, whatever the status.
            PartnerUnavailable, RateLimited: worth another try.
        """
        if not _TEMP_PATH.fullmatch(image_path) or ".." in image_path:
            raise BadInput(f"Not a temp path: {image_path[:200]}", field="image_path")
        try:
            reply = self._api.request("GET", image_path, limit=limit)
        except AnswerTooLong as error:
            raise TooLarge(f"The temp file is larger than the {limit:,} bytes allowed") from error
        if not reply.content or _is_text(reply):
            detail = reply.content[:500].decode(errors="replace")
            raise UnreadableAnswer(f"{_NAME} sent text or nothing instead of the file {image_path}", detail=detail)
        return reply.content

    def close(self) -> None:
        """Close the connections."""
        self._api.close()


def _is_text(reply: Reply) -> bool:
    """Whether the declared type is text and the content could be: servers also declare wrong types for files."""
    kind = reply.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    declared = kind.startswith("text/") or kind.endswith(("json", "xml"))
    return declared and b"\0" not in reply.content
