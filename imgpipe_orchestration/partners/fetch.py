"""Downloading what an untrusted link points at.

Only http and https; addresses are checked by `ssrf`, again at every redirect; bytes, time and redirects are limited; a
download that broke off starts over; retries wait as long as the server asks. Query strings, which contain signatures,
never get into errors or log lines.
"""

from datetime import UTC, datetime
from urllib.parse import urljoin, urlsplit

from imgpipe_orchestration.errors import BadInput, Forbidden, PartnerRefused, TooLarge
from imgpipe_orchestration.partners.http import Connected
from imgpipe_orchestration.partners.links import expiry_of, without_secrets
from imgpipe_orchestration.partners.reply import AnswerTooLong, Reply
from imgpipe_orchestration.partners.retry import Deadline, RetryPolicy, call
from imgpipe_orchestration.partners.ssrf import Guard
from imgpipe_orchestration.telemetry.logs import logger

log = logger(__name__)

_STALL_SECONDS = 20.0
"""Longest silence of a server."""
_REDIRECTS = 5
_REFUSALS = {401: "it needs a login", 403: "access is refused", 404: "there is nothing there", 410: "it was removed"}
DOWNLOAD = RetryPolicy(attempts=4)
"""How often a download is tried; who waits for it says how long."""


class Fetcher(Connected):
    """Downloads from where the guard permits; thread-safe, keeps connections."""

    def __init__(self, guard: Guard) -> None:
        super().__init__("", guard)

    def fetch_bytes(self, url: str, policy: RetryPolicy = DOWNLOAD, *, max_bytes: int = 50 * 1024 * 1024) -> bytes:
        """The content of `url`.

        Raises:
            BadInput: not an http(s) URL, or one with a user name in it.
            Forbidden: it or a redirect leads to a private address.
            TooLarge: more than `max_bytes`.
            PartnerRefused: 4xx, in `partner_status`; names an expired signature as the reason.
            RateLimited, PartnerUnavailable: still failing after the tries and the time that `policy` allows.
        """
        check_url(url)
        _ = self._connections  # before the time begins to run
        return call(lambda deadline: self._attempt(url, max_bytes, deadline), policy)

    def _attempt(self, url: str, max_bytes: int, deadline: Deadline) -> bytes:
        import httpx2

        here = url
        for _ in range(_REDIRECTS + 1):
            link, asked = without_secrets(here), httpx2.Request("GET", here)
            try:
                reply = self._connections.ask(
                    asked, deadline, partner=link, limit=max_bytes, stall=_STALL_SECONDS, only_good=True
                )
            except AnswerTooLong as error:
                raise TooLarge(error.public) from error
            location = reply.headers.get("Location")
            if reply.status not in (301, 302, 303, 307, 308) or not location:
                _refuse_bad_status(reply, here)
                log.info("downloaded", extra={"url": link, "bytes": len(reply.content)})
                return reply.content
            here = _redirected(here, location)
        raise PartnerRefused(f"{without_secrets(here)}: more than {_REDIRECTS} redirects")


def _redirected(url: str, location: str) -> str:
    """Where a redirect leads, if that is a plain http(s) URL."""
    try:
        url = urljoin(url, location)
        check_url(url)
    except (ValueError, BadInput) as error:
        why = error.public if isinstance(error, BadInput) else "it is not a URL"
        raise Forbidden(f"A redirect leads to something we do not fetch: {why}") from None
    return url


def check_url(url: str) -> None:
    """Check that this is a plain http(s) URL.

    Raises:
        BadInput: it is not; says why.
    """
    if len(url) > 8192 or any(c.isspace() or not c.isprintable() for c in url):
        raise BadInput("The link is too long or has spaces or control characters in it", field="url")
    import httpx2

    try:
        parts = urlsplit(url)
        host, user, _ = parts.hostname, parts.username, parts.port
        httpx2.URL(url)
    except (ValueError, httpx2.InvalidURL) as error:
        raise BadInput("The link is not a URL", field="url") from error
    if parts.scheme not in ("http", "https") or not host:
        raise BadInput(f"Only http and https links are fetched: {without_secrets(url)}", field="url")
    if user is not None or "\\" in parts.netloc:
        raise BadInput(f"A link with a user name in it is not fetched: {without_secrets(url)}", field="url")


def _refuse_bad_status(reply: Reply, url: str) -> None:
    """Raise the error that the status means."""
    link, status = without_secrets(url), reply.status
    try:
        reply.refuse_bad_status(link)
    except PartnerRefused:
        ends = expiry_of(url)
        if status in (400, 401, 403) and ends is not None and ends < datetime.now(UTC):
            reason = f"the link has expired (its signature ended {ends:%Y-%m-%d %H:%M UTC})"
        else:
            reason = f"{_REFUSALS.get(status, 'the server refused')} (HTTP {status})"
        raise PartnerRefused(f"{link}: {reason}", partner_status=status) from None
