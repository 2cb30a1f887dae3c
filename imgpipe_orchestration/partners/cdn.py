"""Purging a CDN by tags: Cloudflare's `purge_cache`, Fastly's surrogate keys, or a webhook of the company's own.

Cloudflare: developers.cloudflare.com/api/resources/cache/methods/purge (at most 30 tags, success in the body).
Fastly: www.fastly.com/documentation/reference/api/purging (at most 256 keys in the header `Surrogate-Key`).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Self

from imgpipe_orchestration.errors import SettingsError, UnreadableAnswer
from imgpipe_orchestration.partners.http import JsonApi

if TYPE_CHECKING:
    from imgpipe_orchestration.settings import Settings

MOST = {"none": 1, "cloudflare": 30, "fastly": 256, "webhook": 1000}
"""Tags in one request."""


class Cdn:
    """The CDN that CDN_PURGE names."""

    def __init__(self, kind: str, url: str, token: str, *, timeout: float = 30.0) -> None:
        self.kind = kind
        self.most = MOST[kind]
        self._url = url
        headers = {"Fastly-Key": token} if kind == "fastly" else {"Authorization": f"Bearer {token}"} if token else {}
        self._api = JsonApi("The CDN", url, headers=headers, timeout=timeout)

    @classmethod
    def from_settings(cls, settings: Settings) -> Self:
        return cls(
            settings.cdn_purge,
            settings.cdn_purge_url,
            settings.cdn_purge_token,
            timeout=settings.partner_timeout_seconds,
        )

    def purge(self, tags: Sequence[str]) -> None:
        """Forget every answer with one of the tags.

        Raises:
            SettingsError: CDN_PURGE_URL is not set.
            PartnerRefused: the CDN does not want to.
            PartnerUnavailable, RateLimited: worth another try.
        """
        if self.kind == "none":
            return
        if not self._url:
            raise SettingsError(f"CDN_PURGE is {self.kind}, and CDN_PURGE_URL is not set.", field="CDN_PURGE_URL")
        if self.kind == "fastly":
            answer = self._api.request_json("POST", "", headers={"Surrogate-Key": " ".join(tags)})
            _must(isinstance(answer, dict), answer)
            return
        reply = self._api.request(
            "POST", "", body=json.dumps({"tags": list(tags)}).encode(), headers={"Content-Type": "application/json"}
        )
        if self.kind == "cloudflare":  # which says so with status 200, too, when it did not
            answer = reply.json("The CDN")
            _must(isinstance(answer, dict) and answer.get("success") is True, answer)

    def close(self) -> None:
        """Close the connections."""
        self._api.close()


def _must(taken: bool, answer: Any) -> None:
    if not taken:
        raise UnreadableAnswer("The CDN's answer does not say that it purged", detail=str(answer)[:500])
