"""JSON over HTTP to partners without a light library of their own, by requests, with its errors turned into ours.

Redirects are not followed, as a bearer key must not be sent to another host. Answers are limited in size and in total
time, so that a server cannot drip a byte a second. Cookies and .netrc are ignored.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from email.message import Message
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from imgpipe_orchestration import tracing
from imgpipe_orchestration.errors import (
    PartnerAway,
    PartnerRefused,
    PartnerUnavailable,
    RateLimited,
    UnreadableAnswer,
)
from imgpipe_orchestration.partners.json_text import decoded
from imgpipe_orchestration.partners.links import redirected
from imgpipe_orchestration.partners.rate_limit import gate
from imgpipe_orchestration.partners.retry import Deadline, RetryPolicy, call, parse_retry_after
from imgpipe_orchestration.partners.server_errors import server_error, words_of
from imgpipe_orchestration.partners.ssrf import Guard, guarded_pools

if TYPE_CHECKING:
    import requests
    import urllib3
    from requests.adapters import HTTPAdapter

ANSWER_LIMIT = 32 * 1024 * 1024
"""Largest accepted answer, bytes: well above an annotated image, well below what would exhaust memory."""


class JsonApi:
    """One partner's base address with its credentials."""

    def __init__(
        self,
        partner: str,
        base_url: str,
        *,
        headers: Mapping[str, str] | None = None,
        timeout: float = 60.0,
        policy: RetryPolicy | None = None,
        guard: Guard | None = None,
        paid: bool = False,
    ) -> None:
        """
        Args:
            headers: sent with every request, credentials among them.
            timeout: seconds for one try, from sending to the last byte of the answer.
            policy: tries and time for all of them; default three within twice the timeout.
            guard: restricts addresses; needed where the URL comes from a tenant and not from the operator.
            paid: see `retry.call`.
        """
        self.partner = partner
        self.base_url = base_url
        self.timeout = timeout
        self.policy = policy or RetryPolicy(budget=2 * timeout)
        self._headers = dict(headers or {})
        self._guard = guard
        self._paid = paid
        self._session: requests.Session | None = None
        self._lock = threading.Lock()

    def request(
        self,
        method: str,
        path: str,
        *,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        limit: int = ANSWER_LIMIT,
    ) -> Reply:
        """Send a request and return the answer; failures that may pass are retried.

        Args:
            path: appended to the base address, which is used as it was configured if this is empty or only a query.
            limit: largest accepted answer, bytes.

        Raises:
            PartnerRefused: 3xx, and 4xx except 408, 425 and 429.
            RateLimited: 429 until the tries or the time were used up.
            AnswerTooLong: past `limit`.
            UnreadableAnswer: not compressed as its headers say.
            PartnerAway: no connection, or 5xx.
            PartnerStumbled, SpendingPaused: a paid partner's 5xx that says so.
            PartnerUnavailable: too slow, or cut off.
            Forbidden: the guard refuses the address.
        """
        rate = gate(self.partner, self.base_url, *self._headers.values())

        def attempt(deadline: Deadline) -> Reply:
            rate.enter(deadline, partner=self.partner)
            seconds = max(0.001, min(self.timeout, deadline.remaining))
            with tracing.span(f"{method} {self.partner}", "client") as span:
                sent = {**self._headers, **(headers or {}), **tracing.headers()}
                reply = self._send(method, path, body, sent, limit, seconds)
                tracing.note(span, status=reply.status)
            rate.learn(reply.status, reply.headers)
            refuse_bad_status(self.partner, reply, paid=self._paid)
            return reply

        return call(attempt, self.policy, paid=self._paid)

    def request_json(self, method: str, path: str, *, json_body: Any = None, **options: Any) -> Any:
        """`request` with JSON both ways.

        Raises:
            UnreadableAnswer: the answer is not JSON (truncated, an HTML error page); else as `request`.
        """
        body = None if json_body is None else json.dumps(json_body).encode()
        headers = {**options.pop("headers", {}), "Accept": "application/json"}
        if body is not None:
            headers["Content-Type"] = "application/json"
        return self.request(method, path, body=body, headers=headers, **options).json(self.partner)

    def _send(
        self, method: str, path: str, body: bytes | None, headers: Mapping[str, str], limit: int, seconds: float
    ) -> Reply:
        import requests  # takes 0.15 s, and definitions import this module

        from imgpipe_orchestration.partners.connections import answered_by, never_sent, why

        base = self.base_url.rstrip("/") if path.startswith("/") else self.base_url
        try:
            with (
                answered_by(Deadline(seconds)),
                self._open().request(
                    method,
                    base + path,
                    data=body,
                    headers=headers,
                    timeout=seconds,
                    allow_redirects=False,
                    stream=True,
                ) as response,
            ):
                content = read_bounded(response.raw, limit=limit, partner=self.partner)
                return Reply(response.status_code, response.headers, content)
        except requests.ConnectTimeout:
            raise PartnerAway(f"{self.partner} could not be reached within {seconds:.0f} s") from None
        except requests.Timeout as error:
            raise PartnerUnavailable(f"{self.partner} did not answer within {seconds:.0f} s") from error
        except requests.RequestException as error:
            # The exception is dropped: its text contains the URL, which may have keys in its query.
            reason = getattr(error.args[0], "reason", None) if error.args else None
            kind = PartnerAway if never_sent(reason) else PartnerUnavailable
            raise kind(f"{self.partner} could not be reached ({why(error)})") from None

    def close(self) -> None:
        """Close the connections."""
        with self._lock:
            if self._session is not None:
                self._session.close()
                self._session = None

    def _open(self) -> requests.Session:
        with self._lock:
            if self._session is None:
                self._session = open_session(self.base_url, self._guard)
            return self._session


def open_session(url: str, guard: Guard | None = None) -> requests.Session:
    """A session for requests to `url` within `connections.answered_by`."""
    import requests

    session = requests.Session()
    adapter = _adapter(guard)
    session.mount("http://", adapter)
    session.mount("https://", adapter)
    # Read the environment once here: with trust_env, requests would do so for every request, and would replace our
    # keys by those of ~/.netrc.
    environment = session.merge_environment_settings(url, {}, None, None, None)
    session.proxies, session.verify = environment["proxies"], environment["verify"]
    session.trust_env = False
    session.cookies.set_policy(_no_cookies())
    return session


def _adapter(guard: Guard | None) -> HTTPAdapter:
    from requests.adapters import HTTPAdapter

    from imgpipe_orchestration.partners.connections import connect_by

    class TimedAdapter(HTTPAdapter):
        def init_poolmanager(self, *args: Any, **options: Any) -> None:
            super().init_poolmanager(*args, **options)
            connect_by(self.poolmanager)

        def proxy_manager_for(self, proxy: str, **options: Any) -> Any:
            manager = super().proxy_manager_for(proxy, **options)
            if not proxy.lower().startswith("socks"):  # SOCKS needs connection classes of its own
                connect_by(manager)
            return manager

    if guard is None:
        return TimedAdapter(pool_maxsize=32)

    pools = guarded_pools(guard)

    class GuardedAdapter(HTTPAdapter):
        def init_poolmanager(self, *_: Any, **__: Any) -> None:
            self.poolmanager = pools

        def send(self, request: requests.PreparedRequest, *_: Any, **options: Any) -> requests.Response:
            # A proxy would connect without the guard's check.
            return super().send(request, **{**options, "proxies": None})

    return GuardedAdapter()


@dataclass(frozen=True, slots=True)
class Reply:
    """A finished answer."""

    status: int
    headers: Mapping[str, str]
    content: bytes

    def json(self, partner: str) -> Any:
        """The decoded body.

        Raises:
            UnreadableAnswer: not JSON.
        """
        try:
            return self._parsed()
        except (ValueError, LookupError) as error:
            # A web page usually is a proxy's login or a closed host, and not the partner's.
            what = "a web page instead of" if self.is_html else "something that is not" if self.content else "no"
            detail = self.content[:500].decode(errors="replace")
            raise UnreadableAnswer(f"{partner} answered {what} JSON", detail=detail) from error

    @property
    def is_html(self) -> bool:
        """Whether the body begins as a web page does, whatever the headers say."""
        head = self.content[:1000].lstrip(b"\xef\xbb\xbf \r\n\t").lower()
        return head.startswith((b"<!doctype html", b"<html", b"<!--"))

    def _parsed(self) -> Any:
        try:
            return decoded(self.content)
        except UnicodeDecodeError:
            # JSON should be UTF-8, but old servers write Latin-1 and declare it.
            declared = Message()
            declared["Content-Type"] = self.headers.get("Content-Type", "")
            return decoded(self.content.decode(declared.get_content_charset("utf-8")))


class AnswerTooLong(UnreadableAnswer):
    """The answer is larger than allowed."""

    title = "Answer too long"


def at_host(partner: str, url: str) -> str:
    """The partner's name with the host of its address, for a partner whose address each tenant sets."""
    return f"{partner} at {urlsplit(url).netloc.rpartition('@')[2]}"


def refuse_bad_status(partner: str, reply: Reply, *, paid: bool = False) -> None:
    """Raise the error that a status means. The body goes into `detail`, which is for logs only.

    Of a `paid` partner's 5xx the words count, and are shown (`server_errors`). 206 is refused as well, because nobody
    asks for a part of an answer here.
    """
    status = reply.status
    if status == 206:
        raise UnreadableAnswer(f"{partner} sent a part of its answer only (HTTP 206)")
    if 200 <= status < 300:
        return
    detail = reply.content[:1000].decode(errors="replace")
    asked = parse_retry_after(reply.headers)
    if status == 429:
        raise RateLimited(f"{partner} asks us to slow down (HTTP 429)", detail=detail, retry_after=asked)
    if paid and status >= 500:
        raise server_error(partner, status, words_of(reply.content), detail=detail, retry_after=asked)
    if status >= 500 or status in (408, 425):
        kind = PartnerAway if status >= 500 else PartnerUnavailable
        raise kind(f"{partner} failed (HTTP {status})", detail=detail, retry_after=asked, partner_status=status)
    reason = {401: "does not accept our credential", 403: "forbids this", 404: "does not know this address"}.get(
        status, redirected(reply.headers.get("Location")) if status < 400 else "refused the request"
    )
    raise PartnerRefused(f"{partner} {reason} (HTTP {status})", detail=detail, partner_status=status)


def read_bounded(raw: urllib3.BaseHTTPResponse, *, limit: int, partner: str) -> bytes:
    """The whole body, at most `limit` bytes.

    Raises:
        AnswerTooLong: more than `limit`.
        UnreadableAnswer: not compressed as its headers say.
        PartnerUnavailable: too slow, or cut off.
    """
    from urllib3.exceptions import DecodeError, HTTPError, ReadTimeoutError

    from imgpipe_orchestration.partners.bodies import unpacked

    parts: list[bytes] = []
    size = 0
    try:
        for part in unpacked(raw):
            parts.append(part)
            size += len(part)
            if size > limit:
                raise AnswerTooLong(f"{partner} answered more than the {limit:,} bytes allowed")
    except DecodeError as error:
        raise UnreadableAnswer(f"{partner}'s answer is not compressed as it claims") from error
    except ReadTimeoutError as error:
        raise PartnerUnavailable(f"{partner} took too long to send its answer") from error
    except HTTPError as error:
        raise PartnerUnavailable(f"{partner}'s answer broke off ({type(error).__name__})") from error
    return b"".join(parts)


def _no_cookies() -> Any:
    from http.cookiejar import DefaultCookiePolicy

    return DefaultCookiePolicy(allowed_domains=[])
