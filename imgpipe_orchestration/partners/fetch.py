"""Downloading what an untrusted link points at.

Only http and https; addresses are checked by `ssrf`, again at every redirect; bytes, time and redirects are limited;
broken downloads are resumed by a Range request; retries wait as long as the server asks. Query strings, which contain
signatures, never get into errors or log lines.
"""

from __future__ import annotations

import io
import re
import threading
from collections.abc import Callable, Mapping
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

_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)", re.ASCII)


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
class _Progress:
    """The bytes so far, and what is needed to resume the download."""

    sink: io.BytesIO = field(default_factory=io.BytesIO)
    received: int = 0
    total: int | None = None
    validator: str = ""
    """ETag or Last-Modified; empty where the download cannot be resumed."""
    resumed: int = 0
    """How often the download was resumed."""

    def restart(self) -> None:
        self.sink.seek(0)
        self.sink.truncate()
        self.received, self.total, self.validator = 0, None, ""


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
        progress = _Progress()
        policy = RetryPolicy(attempts=limits.attempts, budget=limits.seconds, stopped=limits.stopped)
        final = call(lambda deadline: self._attempt(url, progress, limits, deadline), policy)
        log.info("downloaded", extra={"url": final, "bytes": progress.received, "resumed": progress.resumed})
        return progress.sink.getvalue()

    def _attempt(self, url: str, progress: _Progress, limits: FetchLimits, deadline: Deadline) -> str:
        """One try; returns the final URL after redirects, without secrets."""
        from urllib3.exceptions import HTTPError

        from imgpipe_orchestration.partners.connections import answered_by, why

        headers = {"Accept-Encoding": "identity", "User-Agent": "imgpipe"}
        if progress.received and progress.validator:
            headers |= {"Range": f"bytes={progress.received}-", "If-Range": progress.validator}
        else:
            progress.restart()
        try:
            with answered_by(deadline):
                response, final = self._follow(url, headers, limits, deadline)
            try:
                _refuse_bad_status(response, final)
                _receive(response, progress, limits, without_secrets(final))
            finally:
                response.close()
        except HTTPError as error:
            # urllib3's messages contain the whole URL, so they are dropped, even from the traceback.
            if deadline.passed:
                raise PartnerUnavailable(f"{without_secrets(url)}: not complete after {limits.seconds:.0f} s") from None
            raise PartnerUnavailable(f"{without_secrets(url)}: the download broke off ({why(error)})") from None
        return without_secrets(final)

    def _follow(
        self, url: str, headers: Mapping[str, str], limits: FetchLimits, deadline: Deadline
    ) -> tuple[urllib3.BaseHTTPResponse, str]:
        """The first answer that is not a redirect, and its URL."""
        import urllib3

        for _ in range(limits.redirects + 1):
            seconds = max(0.001, min(limits.stall_seconds, deadline.remaining))
            response = self._open().request(
                "GET",
                url,
                headers=headers,
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
    if 200 <= status < 300 or status == 416:  # a proxy's 203 and a careless 201 contain the file as well
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


def _receive(response: urllib3.BaseHTTPResponse, progress: _Progress, limits: FetchLimits, link: str) -> None:
    """Append the body to the sink. If this raises, the next attempt resumes from what has arrived."""
    from imgpipe_orchestration.partners.bodies import unpacked

    _place(response, progress, link)
    _keep_validator(response, progress)
    if progress.total is not None and progress.total > limits.max_bytes:
        raise TooLarge(f"{link}: {progress.total:,} bytes, more than the {limits.max_bytes:,} allowed")
    for part in unpacked(response):
        progress.received += len(part)
        if progress.received > limits.max_bytes:
            raise TooLarge(f"{link}: more than the {limits.max_bytes:,} bytes allowed")
        progress.sink.write(part)
    if progress.total is not None and progress.received != progress.total:
        raise PartnerUnavailable(f"{link}: {progress.received:,} of {progress.total:,} bytes came")


def _place(response: urllib3.BaseHTTPResponse, progress: _Progress, link: str) -> None:
    """Decide where the body belongs: after the bytes so far, or at the start."""
    match = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
    if response.status == 416:
        progress.validator = ""
        raise PartnerUnavailable(f"{link}: the server would not resume where the download broke off")
    if match and whole(match[1]) == progress.received and progress.received:
        total, tag = progress.total if match[3] == "*" else whole(match[3]), response.headers.get("ETag", "")
        is_other_tag = tag and progress.validator.startswith('"') and tag != progress.validator
        if is_other_tag or progress.total not in (None, total):  # parts of two files (RFC 9110, 15.3.7.3)
            progress.validator = ""
            raise PartnerUnavailable(f"{link}: the file changed while it was downloaded")
        progress.resumed += 1
        progress.total = total
        return
    if response.status == 206:
        progress.validator = ""
        raise PartnerUnavailable(f"{link}: the server sent another part than asked for")
    progress.restart()
    # With an encoding, Content-Length is not the length of the file (RFC 9112, 6.3).
    if not any(response.headers.get(f"{what}-Encoding") for what in ("Content", "Transfer")):
        progress.total = whole(response.headers.get("Content-Length", ""))


def _keep_validator(response: urllib3.BaseHTTPResponse, progress: _Progress) -> None:
    """Keep a strong ETag, else Last-Modified, to get the rest of the same file (If-Range, RFC 9110, 13.1.5)."""
    if response.headers.get("Content-Encoding"):
        return
    tag = response.headers.get("ETag", "")
    strong = tag if tag.startswith('"') else ""
    progress.validator = progress.validator or strong or response.headers.get("Last-Modified", "")
