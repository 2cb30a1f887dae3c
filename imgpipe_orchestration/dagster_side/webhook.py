"""Alerts: messages to a webhook in Slack's format.

Slack, Mattermost, Rocket.Chat, Discord (with `/slack` at the end of its URL) and most alert gateways accept it.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal

import httpx2

from imgpipe_orchestration.errors import PartnerRefused, PartnerUnavailable
from imgpipe_orchestration.partners.connections import FAILURES, Connections, why
from imgpipe_orchestration.partners.retry import Deadline
from imgpipe_orchestration.telemetry.redaction import redact

TIMEOUT_SECONDS = 5.0
"""From the connection to the end of the answer's head."""
LONGEST = 1500
"""Characters of a reason. Discord refuses messages of more than 2,000."""


def run_failed(*, job: str, run_id: str, link: str, reason: str, partition: str = "") -> dict[str, str]:
    """The message about a failed run, redacted."""
    head = f":rotating_light: *{_plain(job)}* failed" + (f" on {_plain(partition)}" if partition else "")
    why = _plain(redact(reason)).replace("\n", "\n>")[:LONGEST]
    return {"text": f"{head}\n>{why}\n<{link}|run {run_id[:8]}>"}


def check_failed(*, check: str, asset: str, link: str, details: Mapping[str, object]) -> dict[str, str]:
    """The message about an asset check that began to fail, redacted.

    Args:
        details: the metadata of its evaluation.
    """
    found = _plain(redact(", ".join(f"{label}: {value}" for label, value in details.items())))[:LONGEST]
    head = f":warning: The check *{_plain(check)}* of {_plain(asset)} fails"
    return {"text": f"{head}\n>{found}\n<{link}|its evaluations>"}


def budget_reached(
    title: str, share: float, spent: Decimal, limit: Decimal, used_up: bool, link: str
) -> dict[str, str]:
    """The message that a budget has reached a share of its limit."""
    waits = "; paid work waits" if used_up else ""
    told = f":moneybag: {share:.0%} of the *{_plain(title)}* is spent: {spent:.2f} of {limit:.2f} USD{waits}"
    return {"text": f"{told}\n<{link}|spending>"}


def send(url: str, message: dict[str, str], key: str) -> None:
    """Post `message` once. After an error the caller sends it again.

    Args:
        key: the same for every repetition of this message; sent as Idempotency-Key.

    Raises:
        PartnerUnavailable: the webhook does not answer, or answers 5xx or 429.
        PartnerRefused: it refuses the message (a wrong or revoked URL).
    """
    try:
        request = httpx2.Request("POST", url, json=message, headers={"Idempotency-Key": key})
        connections = Connections(url)
        try:
            # Only the head of the answer is read: its body may be of any size, or never end.
            with connections.answering(request, Deadline(TIMEOUT_SECONDS)) as answer:
                status = answer.status
        finally:
            connections.close()
    except (*FAILURES, httpx2.InvalidURL) as error:
        # Not `from error`, whose text may contain the URL, which is a secret.
        raise PartnerUnavailable(f"The alert webhook does not answer ({why(error)}).") from None
    if status >= 500 or status == 429:
        raise PartnerUnavailable(f"The alert webhook answered {status}.")
    if status >= 300:
        raise PartnerRefused(f"The alert webhook answered {status}.", partner_status=status)


def _plain(text: str) -> str:
    """Text with Slack's special characters escaped (docs.slack.dev, "Formatting message text")."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
