"""The clients of the providers in force, one for each and its limits, made at their first use."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar, cast

from imgpipe_orchestration.partners.fetch import Fetcher
from imgpipe_orchestration.partners.flowise import Flowise
from imgpipe_orchestration.partners.google_vision import GoogleVision
from imgpipe_orchestration.partners.models import Models
from imgpipe_orchestration.partners.openai import OpenAIClient
from imgpipe_orchestration.partners.openai_chat import OpenAIChatClient
from imgpipe_orchestration.partners.openai_errors import server_name
from imgpipe_orchestration.partners.openai_moderation import Moderator
from imgpipe_orchestration.settings import Settings

Client = TypeVar("Client")


class Clients:
    """Thread-safe. A provider is a name in `Models.providers`, whose dialect is the caller's business."""

    def __init__(self, models: Models, settings: Settings) -> None:
        self._models = models
        self._seconds = settings.partner_timeout_seconds
        self._made: dict[tuple[str, float], Any] = {}
        self._lock = threading.Lock()

    def openai(self, provider: str, *, seconds: float | None = None, fetcher: Fetcher | None = None) -> OpenAIClient:
        """A client of OpenAI's protocols; a try may take `seconds`, by default PARTNER_TIMEOUT_SECONDS."""
        about, key = self._models.providers[provider], self._models.key(provider)
        make = OpenAIChatClient if about.dialect == "openai-chat" else OpenAIClient
        limit, name = seconds or self._seconds, server_name(provider)
        # The SDK refuses to work without a key, which a server of one's own may not want.
        key, url = key or "none", about.base_url
        return self._once(provider, limit, lambda: make(key, base_url=url, timeout=limit, fetcher=fetcher, name=name))

    def moderator(self, provider: str) -> Moderator:
        """Uploads wait for it, so a try may take ten seconds at most."""
        url, key = self._models.providers[provider].base_url, self._models.key(provider)
        seconds, name = min(10.0, self._seconds), server_name(provider)
        make = partial(Moderator, key, base_url=url, timeout=seconds, name=name)
        return self._once(f"{provider} moderation", seconds, make)

    def flowise(self, provider: str) -> Flowise:
        url, key = self._models.providers[provider].base_url, self._models.key(provider)
        return self._once(provider, self._seconds, lambda: Flowise(url, key, timeout=self._seconds))

    def google_vision(self, provider: str) -> GoogleVision:
        url, key = self._models.providers[provider].base_url, self._models.key(provider)
        return self._once(provider, self._seconds, lambda: GoogleVision(url, key, timeout=self._seconds))

    def _once(self, provider: str, seconds: float, make: Callable[[], Client]) -> Client:
        with self._lock:
            if (provider, seconds) not in self._made:
                self._made[provider, seconds] = make()
            return cast(Client, self._made[provider, seconds])

    def close(self) -> None:
        """Close the connections."""
        for client in self._made.values():
            client.close()
