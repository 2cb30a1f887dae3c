"""What a partner's 5xx says: away, or unable to answer this one question, or refused by a provider of its own.

Flowise answers 500 to whatever its flow met: a content filter, a parser that gave up, the model provider's quota. Its
words tell which (https://github.com/FlowiseAI/Flowise/blob/main/packages/server/src/middlewares/errors/index.ts).
"""

from __future__ import annotations

import re

from imgpipe_orchestration.errors import ImgpipeError, PartnerAway, PartnerStumbled, RateLimited, SpendingPaused
from imgpipe_orchestration.partners.json_text import decoded
from imgpipe_orchestration.telemetry.redaction import redact

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


def words_of(content: bytes) -> str:
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
    """The error for a 5xx whose body says `said` (see `words_of`)."""
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
