"""Telling people outside that something went wrong: one message to a webhook in Slack's format.

Slack, Mattermost, Rocket.Chat, Discord (with `/slack` at the end of its URL) and most alert gateways take it.
"""

from __future__ import annotations

import requests

from imgpipe_orchestration.errors import PartnerRefused, PartnerUnavailable
from imgpipe_orchestration.redaction import redact

TIMEOUT_SECONDS = 5.0
LONGEST = 1500
"""Characters of a reason: Discord refuses messages of more than 2,000, and nobody reads that far."""


def run_failed(*, job: str, run_id: str, link: str, reason: str, partition: str = "") -> dict[str, str]:
    """The message about a failed run, with everything that is no business of a chat taken out."""
    head = f":rotating_light: *{_plain(job)}* failed" + (f" on {_plain(partition)}" if partition else "")
    why = _plain(redact(reason)).replace("\n", "\n>")[:LONGEST]
    return {"text": f"{head}\n>{why}\n<{link}|run {run_id[:8]}>"}


def send(url: str, message: dict[str, str], key: str) -> None:
    """Post `message`, once: whoever asks keeps it until this returns, and may have to send it again.

    Args:
        key: the same for every repetition of this message; sent as Idempotency-Key.

    Raises:
        PartnerUnavailable: the webhook does not answer, answers 5xx, or wants fewer messages (429).
        PartnerRefused: it refuses the message (a wrong or revoked URL).
    """
    try:
        headers = {"Idempotency-Key": key}
        answer = requests.post(url, json=message, headers=headers, timeout=TIMEOUT_SECONDS, allow_redirects=False)
    except requests.RequestException as error:
        # Not `from error`: its text has the URL in it, and the URL is the secret.
        raise PartnerUnavailable(f"The alert webhook does not answer ({type(error).__name__}).") from None
    if answer.status_code >= 500 or answer.status_code == requests.codes.too_many_requests:
        raise PartnerUnavailable(f"The alert webhook answered {answer.status_code}.")
    if answer.status_code >= 300:
        raise PartnerRefused(f"The alert webhook answered {answer.status_code}.", partner_status=answer.status_code)


def _plain(text: str) -> str:
    """Text that Slack shows as it is (docs.slack.dev, "Formatting message text")."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
