"""Taking out of a text what must not be read by others.

Three kinds of finds: a secret that says so by its name (`password=...`, `"api_key": "..."`, `&sig=...`), one that shows
by its form (a bearer token, a JWT, an OpenAI key), and the very keys this process was given, wherever they stand: a
partner may repeat in its error what it was sent. Names are matched by how they end, so that `input_tokens` and
`secret_name` stay. Whatever is found becomes `***`; the text around it stays, so that a URL can still be recognised.

No pattern begins with an open repetition, and what may be tried from many places has a bound: a long line costs time in
proportion to its length.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

MASK = "***"

_NAMES = (
    r"(?:api[_-]?key|access[_-]?key(?:[_-]?id)?|account[_-]?key|private[_-]?key|secret[_-]?key|shared[_-]?key"
    r"|secret|passw(?:or)?d|passphrase|pwd|token|signature|(?<![a-z])sig|credentials?)"
)
_HEADERS = r"(?:authorization|cookie)"
# Straight, escaped (JSON within JSON) or none; then `:` or `=`.
_IS = r"(?:\\*[\"'])?\s*[:=]\s*+"
# What says that there is nothing to hide.
_NOTHING = r"(?!(?:None|null|true|false|\*\*\*)(?![\w*]))"

_PATTERNS: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.DOTALL), MASK),
    # user:password@host of any URL; the password may hold @ or / where somebody forgot to quote them, but what looks
    # like a port and a path is one.
    (
        re.compile(r"(://[^:/@\s\"']{0,256}:)(?!\d{1,5}(?:[/?#\s\"',)]|$))(?:[^\s\"'/]{1,512}|[^\s\"'@]{1,512})@"),
        rf"\1{MASK}@",
    ),
    (re.compile(r"(?i)\b(bearer|basic|digest|token|apikey)\s+(?=[\w.~+/=-]*[\d._~+/=-])[\w.~+/=-]{6,}"), rf"\1 {MASK}"),
    # A whole header: cookies and the less usual schemes have spaces in them.
    (re.compile(rf"(?i)({_HEADERS}{_IS}b?)(\\*\"|\\*')(?!\2).*?(?<!\\)\2"), rf"\1\2{MASK}\2"),
    (re.compile(rf"(?i)({_HEADERS}{_IS})(?!\\*[\"']|b[\"']|\*\*\*)[^\r\n\"']+"), rf"\1{MASK}"),
    # A value in quotes, with the quotes escaped or not; then a bare one.
    (re.compile(rf"(?i)({_NAMES}{_IS}b?)(\\*\"|\\*')(?!\2).*?(?<!\\)\2"), rf"\1\2{MASK}\2"),
    (re.compile(rf"(?i)({_NAMES}{_IS}){_NOTHING}(?!\\*[\"']|b[\"'])[^\s,;&\"'<>(){{}}\[\]\\]+"), rf"\1{MASK}"),
    # In a query string a `key` is a secret; elsewhere it is the name of an object.
    (re.compile(r"(?i)([?&;](?:amp;)?key=)[^\s&\"'<>]+"), rf"\1{MASK}"),
    (re.compile(rf"(?i)(<[^<>/]{{0,64}}{_NAMES}>)[^<]+"), rf"\1{MASK}"),
    (re.compile(r"\bsk-[A-Za-z0-9_-]{8,}"), f"sk-{MASK}"),
    (re.compile(r"\beyJ[A-Za-z0-9_-]{5,4096}\.[A-Za-z0-9_-]{5,8192}\.[A-Za-z0-9_-]*"), MASK),
    (re.compile(r"\b(?:AIza[\w-]{30,}|(?:AKIA|ASIA)[A-Z0-9]{16}|gh[pousr]_\w{20,}|xox[abprs]-[\w-]{10,})"), MASK),
    (re.compile(r"(hooks\.slack\.com/services/)[\w/]+"), rf"\1{MASK}"),
)

_TRIGGERS = (
    *("key", "secret", "passw", "passphrase", "pwd", "token", "sig", "credential", "authorization", "cookie"),
    *("bearer", "basic ", "digest", "://", "sk-", "eyj", "aiza", "akia", "asia", "gh", "xox", "hooks."),
)
"""A text without any of these holds nothing to find: most lines are let through by looking for words alone."""

_LEAST = 16
"""Characters from which a secret is looked for by itself; a shorter one may be a word of any text."""


class _Known:
    """The secrets that this process was given, the longest first: one may be the beginning of another."""

    values: tuple[str, ...] = ()


def know(secrets: Iterable[str]) -> None:
    """Take these out of every text from now on, wherever they stand."""
    every = {*_Known.values, *(secret for secret in secrets if len(secret) >= _LEAST)}
    _Known.values = tuple(sorted(every, key=len, reverse=True))


_SECRET_NAME = re.compile(rf"(?i).*(?:{_NAMES}|{_HEADERS})")


def redact(text: str) -> str:
    """The text without keys, tokens, passwords, cookies and the signatures of SAS and presigned URLs."""
    for secret in _Known.values:
        text = text.replace(secret, MASK)
    lowered = text.lower()
    if not any(word in lowered for word in _TRIGGERS):
        return text
    for pattern, replacement in _PATTERNS:
        text = pattern.sub(replacement, text)
    return text


def is_secret(name: str) -> bool:
    """Whether a field of this name holds a secret: `openai_api_key`, `Authorization`, `user_jwt_secret`."""
    return _SECRET_NAME.fullmatch(name) is not None


def cleaned(value: object, name: str = "") -> object:
    """A value for a log line, redacted in depth: texts, what is in lists and mappings, and what has a telling name."""
    if name and value and not isinstance(value, bool) and is_secret(name):
        return MASK
    if isinstance(value, str):
        return redact(value)
    if value is None or isinstance(value, (bool, int, float)):
        return value
    if isinstance(value, dict):
        return {str(key): cleaned(part, str(key)) for key, part in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [cleaned(part) for part in value]
    return redact(str(value))
