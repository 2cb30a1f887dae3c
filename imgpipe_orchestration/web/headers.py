"""Security headers on every answer, and the comparison of If-None-Match with an ETag.

An answer that needs another policy (a page with a style sheet, an image that others may embed) sets the header itself:
headers that are already there stay.
"""

Head = list[tuple[bytes, bytes]]
"""Header lines, their names in lower case, as ASGI has them."""

HEADERS = {
    # Answers are data and images: nothing in them runs or loads anything, and nobody frames them. What styles an image
    # that is opened by itself is Chromium's.
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
}


def tagged(tag: str) -> dict[str, str]:
    """Headers by which Cloudflare and Fastly later drop every cached answer about one thing."""
    return {"cache-tag": tag, "surrogate-key": tag}


STRICT_TRANSPORT = "max-age=31536000; includeSubDomains"

_PLAIN = [(name.lower().encode(), value.encode()) for name, value in HEADERS.items()]
_SECURE = [*_PLAIN, (b"strict-transport-security", STRICT_TRANSPORT.encode())]


def secured(head: Head, scheme: str) -> Head:
    """A head with the HEADERS that it lacks, and over HTTPS Strict-Transport-Security.

    The scheme is the client's: uvicorn takes it from `X-Forwarded-Proto` of the proxies in FORWARDED_ALLOW_IPS.
    """
    present = {name for name, _ in head}
    wanted = _SECURE if scheme == "https" else _PLAIN
    return [*head, *[header for header in wanted if header[0] not in present]]


def has_it(if_none_match: str | None, etag: str) -> bool:
    """Whether If-None-Match is `*` or lists `etag` (RFC 9110, section 13.1.2), also in its weak form `W/"..."`, which
    proxies make of it when they compress an answer."""
    if not if_none_match:
        return False
    candidates = [one.strip().removeprefix("W/") for one in if_none_match.split(",")]
    return "*" in candidates or etag in candidates
