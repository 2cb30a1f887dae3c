"""Removes secrets from texts.

It finds secrets by their names (`password=...`, `"api_key": "..."`, `&sig=...`), by their form (a bearer token, a JWT,
an OpenAI key), and by their values: the keys of this process are removed wherever they occur, because a partner may
repeat in an error what it was sent. Names are matched at their end, so that `input_tokens` and `secret_name` stay. A
secret becomes `***`; the text around it stays, so that e.g. a URL can still be recognised.

To take time in proportion to a line's length, no pattern begins with an unbounded repetition, and repetitions that may
be tried from many places are bounded.
"""

import re
from collections.abc import Iterable

MASK = "***"

_NAMES = (
    r"(?:api[_-]?key|access[_-]?key(?:[_-]?id)?|account[_-]?key|private[_-]?key|secret[_-]?key|shared[_-]?key"
    r"|secret|passw(?:or)?d|passphrase|pwd|token|signature|(?<![a-z])sig|credentials?)"
)
_HEADERS = r"(?:authorization|cookie)"
# A quote (with backslashes in JSON within JSON) or none; then `:` or `=`.
_IS = r"(?:\\*[\"'])?\s*[:=]\s*+"
# Not before values that are not secrets.
_NOTHING = r"(?!(?:None|null|true|false|\*\*\*)(?![\w*]))"

_PATTERNS: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.DOTALL), MASK),
    # user:password@host of any URL. The password may contain an unescaped @ or /; but digits before a path are a port.
    (
        re.compile(r"(://[^:/@\s\"']{0,256}:)(?!\d{1,5}(?:[/?#\s\"',)]|$))(?:[^\s\"'/]{1,512}|[^\s\"'@]{1,512})@"),
        rf"\1{MASK}@",
    ),
    (re.compile(r"(?i)\b(bearer|basic|digest|token|apikey)\s+(?=[\w.~+/=-]*[\d._~+/=-])[\w.~+/=-]{6,}"), rf"\1 {MASK}"),
    # A whole header, because cookies and some authentication schemes contain spaces.
    (re.compile(rf"(?i)({_HEADERS}{_IS}b?)(\\*\"|\\*')(?!\2).*?(?<!\\)\2"), rf"\1\2{MASK}\2"),
    (re.compile(rf"(?i)({_HEADERS}{_IS})(?!\\*[\"']|b[\"']|\*\*\*)[^\r\n\"']+"), rf"\1{MASK}"),
    # A value in (escaped) quotes; then an unquoted one.
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
"""A text without any of these words matches no pattern; so most lines need no regular expression."""

_LEAST = 16
"""Secrets of at least so many characters are removed by their value; a shorter one may be an ordinary word."""


class _Known:
    """The secrets that this process was given, the longest first: one may be the beginning of another."""

    values: tuple[str, ...] = ()


def know(secrets: Iterable[str]) -> None:
    """Remove these values from every text from now on."""
    every = {*_Known.values, *(secret for secret in secrets if len(secret) >= _LEAST)}
    _Known.values = tuple(sorted(every, key=len, reverse=True))


SECRET_NAME = re.compile(rf"(?i).*(?:{_NAMES}|{_HEADERS})")
"""Of a field that holds a secret: `openai_api_key`, `Authorization`, `user_jwt_secret`."""


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


def cleaned(value: object, name: str = "") -> object:
    """A value for a log line, redacted recursively; masked as a whole when `name` is that of a secret."""
    if name and value and not isinstance(value, bool) and SECRET_NAME.fullmatch(name):
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
