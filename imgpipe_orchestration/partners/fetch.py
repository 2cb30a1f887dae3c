"""Downloading what an untrusted link points at.

Only http and https; addresses are checked by `ssrf`, again at every redirect; bytes, time and redirects are limited; a
download that broke off begins anew; retries wait as long as the server asks. Query strings, which contain signatures,
never get into errors or log lines.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Self
from urllib.parse import urljoin, urlsplit

from imgpipe_orchestration.errors import (
    BadInput,
    Forbidden,
    ImgpipeError,
    PartnerRefused,
    PartnerUnavailable,
    RateLimited,
    TooLarge,
)
from imgpipe_orchestration.logs import logger
from imgpipe_orchestration.partners.links import expiry_of, without_secrets
from imgpipe_orchestration.partners.retry import Deadline, RetryPolicy, call, parse_retry_after, whole
from imgpipe_orchestration.partners.ssrf import AllowList, Guard, check_host, guarded_pools

if TYPE_CHECKING:
    import urllib3

    from imgpipe_orchestration.settings import Settings

log = logger(__name__)


@dataclass(frozen=True, slots=True)
class FetchLimits:
    """Bounds of one download. Times in seconds."""

    max_bytes: int = 50 * 1024 * 1024
    seconds: float = 120.0
    stall_seconds: float = 20.0
    """Longest silence of the server."""
    redirects: int = 5
    attempts: int = 4
    stopped: Callable[[], ImgpipeError | None] = lambda: None
    """Why nobody waits for the download any more, or None; asked often. It then ends like one whose time is over."""


@dataclass(slots=True)
class Fetcher:
    """Downloads under one allow list; thread-safe, keeps connections."""

    allowed: AllowList = field(default_factory=AllowList)
    _pools: urllib3.PoolManager | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @classmethod
    def from_settings(cls, settings: Settings) -> Self:
        return cls(AllowList.parse(settings.allowed_private_hosts))

    def fetch_bytes(self, url: str, limits: FetchLimits | None = None) -> bytes:
        """The content of `url`.

        Raises:
            BadInput: not an http(s) URL, or one with a user name in it.
            Forbidden: it or a redirect leads to a private address.
            TooLarge: more than `limits.max_bytes`.
            PartnerRefused: 4xx, in `partner_status`; names an expired signature as the reason.
            RateLimited, PartnerUnavailable: still failing after the tries and the time that `limits` allow.
        """
        limits = limits or FetchLimits()
        check_url(url)
        policy = RetryPolicy(attempts=limits.attempts, budget=limits.seconds, stopped=limits.stopped)
        return call(lambda deadline: self._attempt(url, limits, deadline), policy)

    def _attempt(self, url: str, limits: FetchLimits, deadline: Deadline) -> bytes:
        from urllib3.exceptions import HTTPError

        from imgpipe_orchestration.partners.connections import answered_by, why

        try:
            with answered_by(deadline):
                response, final = self._follow(url, limits, deadline)
            try:
                _refuse_bad_status(response, final)
                content = _received(response, limits, without_secrets(final))
            finally:
                response.close()
        except HTTPError as error:
            # urllib3's messages contain the whole URL, so they are dropped, even from the traceback.
            if deadline.passed:
                raise PartnerUnavailable(f"{without_secrets(url)}: not complete after {limits.seconds:.0f} s") from None
            raise PartnerUnavailable(f"{without_secrets(url)}: the download broke off ({why(error)})") from None
        log.info("downloaded", extra={"url": without_secrets(final), "bytes": len(content)})
        return content

    def _follow(self, url: str, limits: FetchLimits, deadline: Deadline) -> tuple[urllib3.BaseHTTPResponse, str]:
        """The first answer that is not a redirect, and its URL."""
        import urllib3

        for _ in range(limits.redirects + 1):
            seconds = max(0.001, min(limits.stall_seconds, deadline.remaining))
            response = self._open().request(
                "GET",
                url,
                headers={"Accept-Encoding": "identity", "User-Agent": "imgpipe"},
                redirect=False,
                retries=False,
                preload_content=False,
                timeout=urllib3.Timeout(connect=min(10.0, seconds), read=seconds),
            )
            location = response.headers.get("Location")
            if response.status not in (301, 302, 303, 307, 308) or not location:
                return response, url
            response.close()
            try:
                url = urljoin(url, _as_browsers_read(location))
                check_url(url)
            except (ValueError, BadInput) as error:
                why = error.public if isinstance(error, BadInput) else "it is not a URL"
                raise Forbidden(f"A redirect leads to something we do not fetch: {why}") from None
        raise PartnerRefused(f"{without_secrets(url)}: more than {limits.redirects} redirects")

    def close(self) -> None:
        """Close the connections."""
        with self._lock:
            if self._pools is not None:
                self._pools.clear()

    def _open(self) -> urllib3.PoolManager:
        with self._lock:
            if self._pools is None:
                self._pools = guarded_pools(Guard(self.allowed))
            return self._pools


def _as_browsers_read(location: str) -> str:
    """A Location as browsers read it: it may have spaces, or UTF-8 that was decoded as Latin-1."""
    with suppress(UnicodeError):
        location = location.encode("latin-1").decode()
    return location.replace(" ", "%20")


def check_url(url: str) -> None:
    """Check that this is a plain http(s) URL.

    Raises:
        BadInput: it is not; says why.
    """
    if len(url) > 8192 or any(c.isspace() or not c.isprintable() for c in url):
        raise BadInput("The link is too long or has spaces or control characters in it", field="url")
    from urllib3.util import parse_url

    try:
        parts = urlsplit(url)
        host, user, _ = parts.hostname, parts.username, parts.port
        sent = parse_url(url).host  # as it is sent: an international name as xn--
    except ValueError as error:
        raise BadInput("The link is not a URL", field="url") from error
    if parts.scheme not in ("http", "https") or not host:
        raise BadInput(f"Only http and https links are fetched: {without_secrets(url)}", field="url")
    if user is not None or "\\" in parts.netloc:
        raise BadInput(f"A link with a user name in it is not fetched: {without_secrets(url)}", field="url")
    check_host(host if "%" in host else sent or host)  # urllib3 decodes what is percent-encoded in a host


def _refuse_bad_status(response: urllib3.BaseHTTPResponse, url: str) -> None:
    status, link = response.status, without_secrets(url)
    if status == 206:  # nobody asked for a part
        raise PartnerUnavailable(f"{link}: the server sent only a part of the file (HTTP 206)")
    if 200 <= status < 300:  # a proxy's 203 and a careless 201 contain the file as well
        return
    asked = parse_retry_after(response.headers)
    if status == 429:
        raise RateLimited(f"{link}: the server asks us to slow down (HTTP 429)", retry_after=asked)
    if status >= 500 or status in (408, 425):
        raise PartnerUnavailable(f"{link}: the server failed (HTTP {status})", retry_after=asked)
    ends = expiry_of(url)
    if status in (400, 401, 403) and ends is not None and ends < datetime.now(UTC):
        when = ends.strftime("%Y-%m-%d %H:%M UTC")
        raise PartnerRefused(f"{link}: the link has expired (its signature ended {when})", partner_status=status)
    reasons = {401: "needs a login", 403: "access is refused", 404: "there is nothing there", 410: "it was taken away"}
    raise PartnerRefused(f"{link}: {reasons.get(status, 'the server refused')} (HTTP {status})", partner_status=status)


def _received(response: urllib3.BaseHTTPResponse, limits: FetchLimits, link: str) -> bytes:
    """The whole body."""
    from imgpipe_orchestration.partners.bodies import unpacked

    # With an encoding, Content-Length is not the length of the file (RFC 9112, 6.3).
    encoded = any(response.headers.get(f"{what}-Encoding") for what in ("Content", "Transfer"))
    total = None if encoded else whole(response.headers.get("Content-Length", ""))
    if total is not None and total > limits.max_bytes:
        raise TooLarge(f"{link}: {total:,} bytes, more than the {limits.max_bytes:,} allowed")
    content = bytearray()
    for part in unpacked(response):
        content += part
        if len(content) > limits.max_bytes:
            raise TooLarge(f"{link}: more than the {limits.max_bytes:,} bytes allowed")
    if total is not None and len(content) != total:
        raise PartnerUnavailable(f"{link}: {len(content):,} of {total:,} bytes came")
    return bytes(content)
