"""The answer of a partner, as it came, and the error that it means.

Flowise answers 500 to whatever its flow met: a content filter, a parser that gave up, the model provider's quota. Its
words tell which (https://github.com/FlowiseAI/Flowise/blob/main/packages/server/src/middlewares/errors/index.ts).
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from imgpipe_orchestration.errors import (
    ImgpipeError,
    PartnerAway,
    PartnerRefused,
    PartnerStumbled,
    PartnerUnavailable,
    RateLimited,
    SpendingPaused,
    UnreadableAnswer,
)
from imgpipe_orchestration.partners.json_text import decoded
from imgpipe_orchestration.partners.links import redirected
from imgpipe_orchestration.partners.retry import parse_retry_after
from imgpipe_orchestration.telemetry.redaction import redact

ANSWER_LIMIT = 32 * 1024 * 1024
"""Largest accepted answer, bytes: well above an annotated image, well below what would exhaust memory."""
_LONGEST = 300
"""Characters of a partner's words that are shown."""
_QUOTA = re.compile(
    r"insufficient.?quota|exceeded your current quota|credit balance is too low|billing.{0,20}(limit|not active)|"
    r"insufficient (credits|balance|funds)|payment required|\b402\b",
    re.IGNORECASE,
)
_KEY = re.compile(
    r"(incorrect|invalid|expired|missing|no) (x-)?api.?key|invalid_api_key|api.?key (is |was )?(not (valid|found)|"
    r"invalid|missing|expired|revoked)|authentication.?error|unauthori[sz]ed|\b401\b",
    re.IGNORECASE,
)
_RATE = re.compile(r"rate.?limit|too many requests|resource.?exhausted|\b429\b", re.IGNORECASE)
_AWAY = re.compile(
    r"server had an error|internal (server )?error\W*$|overloaded|unavailable|bad gateway|timed? ?out|timeout|"
    r"ECONN\w+|ENOTFOUND|EAI_AGAIN|ETIMEDOUT|EPIPE|socket hang up|(fetch|connect\w*) (failed|error|refused|reset)",
    re.IGNORECASE,
)
"""Words about the whole service, or about what it cannot reach."""


class AnswerTooLong(UnreadableAnswer):
    """The answer is larger than allowed."""


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
            return decoded(self.content)
        except ValueError as error:
            # A web page usually is a proxy's login or a closed host, and not the partner's.
            what = "a web page instead of" if self.is_html else "something that is not" if self.content else "no"
            detail = self.content[:500].decode(errors="replace")
            raise UnreadableAnswer(f"{partner} answered {what} JSON", detail=detail) from error

    @property
    def is_html(self) -> bool:
        """Whether the body begins as a web page does, whatever the headers say."""
        head = self.content[:1000].lstrip(b"\xef\xbb\xbf \r\n\t").lower()
        return head.startswith((b"<!doctype html", b"<html", b"<!--"))

    def refuse_bad_status(self, partner: str, *, paid: bool = False) -> None:
        """Raise the error that a status means. The body goes into `detail`, which is for logs only.

        Of a `paid` partner's 5xx the words count, and are shown. 206 is refused as well, because nobody asks for a part
        of an answer here.
        """
        status = self.status
        if status == 206:
            raise UnreadableAnswer(f"{partner} sent a part of its answer only (HTTP 206)")
        if 200 <= status < 300:
            return
        detail = self.content[:1000].decode(errors="replace")
        asked = parse_retry_after(self.headers)
        if status == 429:
            raise RateLimited(f"{partner} asks us to slow down (HTTP 429)", detail=detail, retry_after=asked)
        if paid and status >= 500:
            raise server_error(partner, status, _words_of(self.content), detail=detail, retry_after=asked)
        if status >= 500 or status in (408, 425):
            kind = PartnerAway if status >= 500 else PartnerUnavailable
            raise kind(f"{partner} failed (HTTP {status})", detail=detail, retry_after=asked, partner_status=status)
        reason = {401: "does not accept our credential", 403: "forbids this", 404: "does not know this address"}.get(
            status, redirected(self.headers.get("Location")) if status < 400 else "refused the request"
        )
        raise PartnerRefused(f"{partner} {reason} (HTTP {status})", detail=detail, partner_status=status)


def _words_of(content: bytes) -> str:
    """What the body of an error says for people, short and without secrets; empty for a web page, or nothing."""
    try:
        said = decoded(content)
    except ValueError:
        said = content[: 4 * _LONGEST].decode(errors="replace")
        if said.lstrip("\ufeff \r\n\t").startswith("<"):
            return ""
    for name in ("error", "message", "detail"):
        if isinstance(said, dict) and said.get(name):
            said = said[name]
    return plain(said)


def plain(said: object) -> str:
    """Words of a partner as they may be shown: one line, short, without secrets."""
    text = " ".join(said.split()) if isinstance(said, str) else ""
    return redact("".join(letter for letter in text if letter.isprintable()))[:_LONGEST]


def server_error(
    partner: str, status: int, said: str, *, detail: str | None = None, retry_after: float | None = None
) -> ImgpipeError:
    """The error for a 5xx that says this."""
    told = f"{partner} failed (HTTP {status})" + (f": {said}" if said else "")
    if _QUOTA.search(said):
        return SpendingPaused(f"{partner} has no quota left at its own provider: {said}", detail=detail)
    if _KEY.search(said):
        return SpendingPaused(f"{partner}'s key is refused by its own provider: {said}", detail=detail)
    if _RATE.search(said):
        return RateLimited(told, detail=detail, retry_after=retry_after)
    about_this = status == 500 and said and not _AWAY.search(said)
    kind = PartnerStumbled if about_this else PartnerAway
    return kind(told, detail=detail, retry_after=retry_after, partner_status=status)
