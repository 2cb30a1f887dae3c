"""Telling people outside that something went wrong: one message to a webhook in Slack's format.

Slack, Mattermost, Rocket.Chat, Discord (with `/slack` at the end of its URL) and most alert gateways take it.
"""

from __future__ import annotations

import requests
from requests.adapters import HTTPAdapter
from urllib3.util import Retry

from imgpipe_orchestration.errors import PartnerRefused, PartnerUnavailable
from imgpipe_orchestration.redaction import redact

TIMEOUT_SECONDS = 5.0
TRIES = 3
LONGEST = 2000
"""Characters of a reason; Slack cuts a message at 40,000 and nobody reads that far."""


def run_failed(*, job: str, run_id: str, link: str, reason: str, partition: str = "") -> dict[str, str]:
    """The message about a failed run, with everything that is no business of a chat taken out."""
    head = f":rotating_light: *{_plain(job)}* failed" + (f" on {_plain(partition)}" if partition else "")
    why = _plain(redact(reason)[:LONGEST])
    return {"text": f"{head}\n>{why.replace(chr(10), chr(10) + '>')}\n<{link}|run {run_id[:8]}>"}


def send(url: str, message: dict[str, str]) -> None:
    """Post `message`, trying again on faults of the moment.

    Raises:
        PartnerUnavailable: the webhook does not answer, or answers 5xx.
        PartnerRefused: it refuses the message (a wrong or revoked URL).
    """
    # A POST is not repeated by itself; a message that comes twice is better than none.
    retry = Retry(
        TRIES - 1, backoff_factor=0.5, status_forcelist=(429, 500, 502, 503, 504), allowed_methods=None,
        raise_on_status=False,
    )  # fmt: skip
    with requests.Session() as session:
        session.mount("http://", HTTPAdapter(max_retries=retry))
        session.mount("https://", HTTPAdapter(max_retries=retry))
        try:
            answer = session.post(url, json=message, timeout=TIMEOUT_SECONDS, allow_redirects=False)
        except requests.RequestException as error:
            # Not `from error`: its text has the URL in it, and the URL is the secret.
            raise PartnerUnavailable(f"The alert webhook does not answer ({type(error).__name__}).") from None
    if answer.status_code >= 500:
        raise PartnerUnavailable(f"The alert webhook answered {answer.status_code}.")
    if answer.status_code >= 300:
        raise PartnerRefused(f"The alert webhook answered {answer.status_code}.", partner_status=answer.status_code)


def _plain(text: str) -> str:
    """Text that Slack shows as it is (docs.slack.dev, "Formatting message text")."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
