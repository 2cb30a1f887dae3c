"""The signature on callbacks: `X-Imgpipe-Signature: t=<unix seconds>,v1=<hex HMAC-SHA256 of "t.body">`.

Signed with MAIN_API_KEY. The time stamp is part of what is signed, so that an old callback cannot be replayed later.
The form is Stripe's, for which receivers have ready-made code.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import time

from imgpipe_orchestration.errors import Unauthenticated

HEADER = "X-Imgpipe-Signature"
_STAMP = re.compile(r"[0-9]{1,12}")
TOLERANCE_SECONDS = 300
"""How far the stamp may be from our clock, for retries in flight and some clock skew."""


def sign(body: bytes, key: str, *, at: float | None = None) -> str:
    """The header's value for a body. `at` is unix seconds, by default now."""
    stamp = int(time.time() if at is None else at)
    return f"t={stamp},v1={_mac(stamp, body, key)}"


def verify(header: str | None, body: bytes, key: str, *, now: float | None = None) -> None:
    """Check a header against the bytes as they arrived (before any JSON parsing).

    Several `v1` parts are allowed, so that a key can be rotated without an outage; one must match.

    Raises:
        Unauthenticated: missing, malformed, too old, from the future, or not made with `key`.
    """
    if not header:
        raise Unauthenticated(f"The header {HEADER} is missing")
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
