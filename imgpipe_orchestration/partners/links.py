"""URLs, and links that may be signed, SAS (Azure) or presigned (S3, Google): how to show them, and when they end."""

from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qsl, urlsplit

from imgpipe_orchestration.telemetry.redaction import redact


def without_secrets(url: str) -> str:
    """The link for errors and logs: without query (which has the signature), user, password and fragment."""
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
        port = f":{parts.port}" if parts.port else ""
    except ValueError:
        return "(not a URL)"
    host = f"[{host}]" if ":" in host else host
    origin = f"{parts.scheme}://{host}{port}" if parts.scheme or host else ""
    return f"{origin}{parts.path}"[:500]


def redirected(location: str | None) -> str:
    """The message for a redirect that is not followed; its target helps an operator: https, another host, a login."""
    where = redact(without_secrets(location or ""))[:200]  # some partners repeat our key in the path
    to = f" to {where}" if where and where.isprintable() else ""
    return f"redirected{to}, which is not followed"


def expiry_of(url: str) -> datetime | None:
    """When the link's signature ends, in UTC; None where it has none.

    Azure: `se` (https://learn.microsoft.com/rest/api/storageservices/create-service-sas). S3 and Google:
    `X-Amz-Date` plus `X-Amz-Expires` seconds, `X-Goog-...` alike.
    """
    try:
        query = {name.lower(): value for name, value in parse_qsl(urlsplit(url).query)}
        if "se" in query and "sig" in query:
            ends = datetime.fromisoformat(query["se"])
            return ends.replace(tzinfo=UTC) if ends.tzinfo is None else ends.astimezone(UTC)
        for vendor in ("amz", "goog"):
            if f"x-{vendor}-date" in query and f"x-{vendor}-expires" in query:
                signed = datetime.strptime(query[f"x-{vendor}-date"], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
                return signed + timedelta(seconds=int(query[f"x-{vendor}-expires"]))
    except (ValueError, OverflowError):
        return None
    return None
