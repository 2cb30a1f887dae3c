"""Purging a CDN by tags: Cloudflare's `purge_cache`, Fastly's surrogate keys, or a webhook of the company's own.

Cloudflare: developers.cloudflare.com/api/resources/cache/methods/purge (at most 30 tags, success in the body).
Fastly: www.fastly.com/documentation/reference/api/purging (at most 256 keys in the header `Surrogate-Key`).
"""

import json
from collections.abc import Sequence

from imgpipe_orchestration.errors import SettingsError, UnreadableAnswer
from imgpipe_orchestration.partners.http import JsonApi

MOST = {"none": 1, "cloudflare": 30, "fastly": 256, "webhook": 1000}
"""Tags in one request."""


class Cdn(JsonApi):
    """The CDN that CDN_PURGE names."""

    def __init__(self, kind: str, url: str, token: str, *, timeout: float = 30.0) -> None:
        self.kind = kind
        self.most = MOST[kind]
        headers = {"Fastly-Key": token} if kind == "fastly" else {"Authorization": f"Bearer {token}"} if token else {}
        super().__init__("The CDN", url, headers=headers, timeout=timeout)

    def purge(self, tags: Sequence[str]) -> None:
        """Purge every cached response that has one of the tags.

        Raises:
            SettingsError: CDN_PURGE_URL is not set.
            PartnerRefused: the CDN refused.
            PartnerUnavailable, RateLimited: worth another try.
        """
        if self.kind == "none":
            return
        if not self.base_url:
            raise SettingsError(f"CDN_PURGE is {self.kind}, and CDN_PURGE_URL is not set.")
        if self.kind == "webhook":
            body = json.dumps({"tags": list(tags)}).encode()
            self.request("POST", "", body=body, headers={"Content-Type": "application/json"})
            return
        if self.kind == "fastly":
            answer = self.request_json("POST", "", headers={"Surrogate-Key": " ".join(tags)})
        else:
            answer = self.request_json("POST", "", json_body={"tags": list(tags)})
        # Cloudflare answers 200 even when it did not purge.
        if not isinstance(answer, dict) or (self.kind == "cloudflare" and answer.get("success") is not True):
            raise UnreadableAnswer("The CDN's answer does not say that it purged", detail=str(answer)[:500])
