"""The main API, which owns the uploads: temp files come from it and callbacks go to it.

Contract: `/api/media/complete/{id}`, `/api/media/cleanup/{id}`, temp files at their `image_path`. In the embedded
stack the gateway serves these routes as the main API.

Callbacks are signed: `X-Imgpipe-Signature: t=<unix seconds>,v1=<hex HMAC-SHA256 of "t.body" under MAIN_API_KEY>`. The
time stamp is part of what is signed, so that an old callback cannot be replayed later. The form is Stripe's, for which
receivers have ready-made code.
"""

import hashlib
import hmac
import json
import re
import time
from collections.abc import Mapping
from typing import Any

from imgpipe_orchestration.errors import BadInput, TooLarge, Unauthenticated, UnreadableAnswer
from imgpipe_orchestration.partners.http import JsonApi
from imgpipe_orchestration.partners.reply import AnswerTooLong
from imgpipe_orchestration.partners.retry import RetryPolicy

_NAME = "The main API"
HEADER = "X-Imgpipe-Signature"
_STAMP = re.compile(r"[0-9]{1,12}")
TOLERANCE_SECONDS = 300
"""How far the stamp may be from our clock, for retries in flight and some clock skew."""
_TEMP_PATH = re.compile(r"(/[\w.~+-]+)+")


class MainApi(JsonApi):
    """Client of the main API."""

    def __init__(
        self, base_url: str, api_key: str, *, timeout: float = 60.0, policy: RetryPolicy | None = None
    ) -> None:
        self._key = api_key
        headers = {"Authorization": f"Bearer {api_key}"}
        super().__init__(_NAME, base_url, headers=headers, timeout=timeout, policy=policy)

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
        return self.request("POST", path, body=body, headers=headers).json(_NAME)

    def cleanup(self, pending_image_id: int) -> Any:
        """Report an image as failed for good, which removes its temp file; raises as `complete`."""
        return self.request_json("DELETE", f"/api/media/cleanup/{int(pending_image_id)}")

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
            raise BadInput("Not a temp path", detail=image_path[:200], field="image_path")
        try:
            reply = self.request("GET", image_path, limit=limit)
        except AnswerTooLong as error:
            raise TooLarge(f"The temp file is larger than the {limit:,} bytes allowed") from error
        # Servers also declare wrong types for files, so the content must be able to be text, too.
        kind = reply.headers.get("Content-Type", "").partition(";")[0].strip().lower()
        is_text = kind.startswith("text/") or (kind.endswith(("json", "xml")) and not kind.startswith("image/"))
        if not reply.content or (is_text and b"\0" not in reply.content):
            detail = f"{image_path}: {reply.content[:500].decode(errors='replace')}"
            raise UnreadableAnswer(f"{_NAME} sent text or nothing instead of the file", detail=detail)
        return reply.content


def sign(body: bytes, key: str, *, at: float | None = None) -> str:
    """The header's value for a body. `at` is unix seconds, by default now."""
    stamp = int(time.time() if at is None else at)
    return f"t={stamp},v1={_mac(stamp, body, key)}"


def verify(header: str, body: bytes, key: str, *, now: float | None = None) -> None:
    """Check a header against the bytes as they arrived (before any JSON parsing).

    Several `v1` parts are allowed, so that a key can be rotated without an outage; one must match.

    Raises:
        Unauthenticated: malformed, too old, from the future, or not made with `key`.
    """
    parts = [part.strip().partition("=") for part in header.split(",")]
    stamps = [value for name, _, value in parts if name == "t"]
    macs = [value for name, _, value in parts if name == "v1"]
    if len(stamps) != 1 or not _STAMP.fullmatch(stamps[0]) or not macs:
        raise Unauthenticated(f"The header {HEADER} is not of the form t=<unix seconds>,v1=<hex>")
    stamp = int(stamps[0])
    expected = _mac(stamp, body, key)
    if not any(hmac.compare_digest(expected.encode(), mac.encode()) for mac in macs):
        raise Unauthenticated("The signature does not match the body")
    if abs((time.time() if now is None else now) - stamp) > TOLERANCE_SECONDS:
        raise Unauthenticated(f"The signature is more than {TOLERANCE_SECONDS} s away from our clock")


def _mac(stamp: int, body: bytes, key: str) -> str:
    return hmac.new(key.encode(), f"{stamp}.".encode() + body, hashlib.sha256).hexdigest()
