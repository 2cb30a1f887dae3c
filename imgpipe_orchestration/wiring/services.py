"""Connections and clients for all outside systems, made from the settings at their first use.

The gateway has one `Services`; Dagster's resources wrap one.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

from imgpipe_orchestration.billing.prices import PRICES, parse_prices
from imgpipe_orchestration.imaging import limits
from imgpipe_orchestration.imaging.workshop import Workshop, prepared
from imgpipe_orchestration.partners.cdn import Cdn
from imgpipe_orchestration.partners.fetch import Fetcher
from imgpipe_orchestration.partners.ssrf import Guard
from imgpipe_orchestration.settings import Settings
from imgpipe_orchestration.storage.claims import Claims
from imgpipe_orchestration.storage.documents import Documents
from imgpipe_orchestration.storage.made_once import made_once
from imgpipe_orchestration.storage.objects import Bucket, ObjectStore
from imgpipe_orchestration.storage.rows import connect
from imgpipe_orchestration.storage.secrets import Vault
from imgpipe_orchestration.storage.work import Shares
from imgpipe_orchestration.telemetry.logs import configure
from imgpipe_orchestration.telemetry.redaction import know

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from imgpipe_orchestration.billing.batches import HalfPrice
    from imgpipe_orchestration.billing.ledger import Ledger
    from imgpipe_orchestration.partners.flowise import Flowise
    from imgpipe_orchestration.partners.google_vision import GoogleVision
    from imgpipe_orchestration.partners.main_api import MainApi
    from imgpipe_orchestration.partners.models import Models
    from imgpipe_orchestration.partners.openai import OpenAIClient
    from imgpipe_orchestration.prompts.library import Library

Client = TypeVar("Client")

CERTIFICATES = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "AWS_CA_BUNDLE")
"""Files of a private authority: OpenSSL (pymongo, httpx) and obstore read the first, requests and boto3 the
others. With only some of them set, one half of a program trusts a server, and the other does not."""

IMAGE_SECONDS = 180.0
"""Time limit for one drawn picture; a run that is stopped waits for it."""


def share_certificates() -> None:
    """Have every library trust a private authority, whichever variable names it: set those that are not set to the
    first one that is. Before the first connection: libraries read theirs once."""
    named = next((os.environ[name] for name in CERTIFICATES if os.environ.get(name)), None)
    if named is not None:
        for name in CERTIFICATES:
            os.environ[name] = os.environ.get(name) or named


class Services:
    """Connections and clients for one `Settings`, opened at their first use; `close` closes them."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        know(settings.secrets())
        share_certificates()
        limits.allow(megapixels=settings.image_max_megapixels)
        self._partners: dict[tuple[str, float], Any] = {}
        self._lock = threading.Lock()

    @made_once
    def engine(self) -> Engine:
        """The project's PostgreSQL."""
        return connect(self.settings.database_url)

    @made_once
    def pending_engine(self) -> Engine:
        """Where `pending_images` lives: the project's PostgreSQL unless a MySQL or MariaDB was named."""
        url = self.settings.pending_images_database_url
        if url == self.settings.database_url:
            return self.engine
        return connect(url, setting="PENDING_IMAGES_DATABASE_URL")

    @made_once
    def claims(self) -> Claims:
        s = self.settings
        return Claims(self.engine, lease_seconds=s.lease_seconds, spending_pause=s.spending_pause_seconds)

    @made_once
    def objects(self) -> ObjectStore:
        return self._store_at(self.settings.s3_endpoint)

    @made_once
    def _objects_for_clients(self) -> ObjectStore:
        return self._store_at(self.settings.s3_upload_endpoint)

    def _store_at(self, endpoint: str) -> ObjectStore:
        s = self.settings
        return ObjectStore(
            endpoint=endpoint,
            access_key=s.s3_access_key,
            secret_key=s.s3_secret_key,
            region=s.s3_region,
            folder=s.imgpipe_data_dir / "s3" if urlsplit(endpoint).hostname == "127.0.0.1" else None,
        )

    @property
    def upload_bucket(self) -> Bucket:
        """The media bucket at the address for clients (S3_UPLOAD_ENDPOINT); only for URLs that are handed out."""
        return self._objects_for_clients.bucket(self.settings.media_bucket_name)

    @made_once
    def documents(self) -> Documents:
        """MongoDB with the news documents."""
        return Documents(self.settings.mongodb_url, database=self.settings.mongodb_database)

    @property
    def media_bucket(self) -> Bucket:
        return self.objects.bucket(self.settings.media_bucket_name)

    @property
    def listings_bucket(self) -> Bucket:
        return self.objects.bucket(self.settings.listings_bucket_name)

    @property
    def avatars_bucket(self) -> Bucket:
        return self.objects.bucket(self.settings.s3_bucket_name)

    @property
    def vision_bucket(self) -> Bucket:
        return self.objects.bucket(self.settings.vision_bucket_name)

    @made_once
    def vault(self) -> Vault:
        """Encrypts tenants' secrets."""
        return Vault(self.settings.secret_key)

    @made_once
    def fetcher(self) -> Fetcher:
        """Downloads from URLs that were given by outsiders."""
        return Fetcher(Guard.parse(self.settings.allowed_private_hosts))

    @made_once
    def ledger(self) -> Ledger:
        """The journal of paid calls."""
        from imgpipe_orchestration.billing.ledger import Ledger

        s = self.settings
        return Ledger(
            self.engine,
            {**PRICES, **parse_prices(s.model_prices)},
            lease=s.lease_seconds / 2,
            daily_budget_usd=s.daily_budget_usd,
            pause=s.spending_pause_seconds,
        )

    @made_once
    def workshop(self) -> Workshop:
        """Worker processes that decode untrusted images."""
        # One process more than cores, and not for one tenant: see `rendering`.
        return Workshop((os.cpu_count() or 1) + 1, **self._worker())

    @made_once
    def logo_workshop(self) -> Workshop:
        """One worker process that draws SVG logos, with little time and memory: uploads wait for it."""
        return Workshop(1, memory_bytes=512 * 1024**2, cpu_seconds=8, wall_seconds=15, **self._worker())

    def _worker(self) -> dict[str, Any]:
        log = partial(configure, **self.settings.logging())
        return {
            "prepare": partial(prepared, log, self.settings.image_max_megapixels),
            "preload": [configure.__module__],
        }

    @made_once
    def rendering(self) -> Shares:
        """Turns at the workshop. One tenant has as many as there are cores: its giant animations leave a process to the
        images of others."""
        return Shares(self.workshop.workers)

    @made_once
    def main_api(self) -> MainApi:
        from imgpipe_orchestration.partners.main_api import MainApi

        s = self.settings
        return MainApi(s.main_api_url, s.main_api_key, timeout=s.partner_timeout_seconds)

    @made_once
    def cdn(self) -> Cdn:
        s = self.settings
        return Cdn(s.cdn_purge, s.cdn_purge_url, s.cdn_purge_token, timeout=s.partner_timeout_seconds)

    @made_once
    def models(self) -> Models:
        """The providers and models that answer each task."""
        from imgpipe_orchestration.partners.models import Models

        found = Models(self.settings)
        know([found.key(name) for name in found.providers])
        return found

    @made_once
    def prompts(self) -> Library:
        """What the models are asked."""
        from imgpipe_orchestration.prompts.library import Library

        return Library(self.settings)

    def openai(self, provider: str) -> OpenAIClient:
        """The client of a provider with one of OpenAI's protocols."""
        return self._openai(provider, self.settings.partner_timeout_seconds)

    def openai_images(self, provider: str) -> OpenAIClient:
        """The same, with the longer timeout of image generation."""
        return self._openai(provider, IMAGE_SECONDS)

    def moderator(self, provider: str) -> OpenAIClient:
        """The same for moderation, for which uploads wait: a try may take ten seconds at most."""
        return self._openai(provider, min(10.0, self.settings.partner_timeout_seconds))

    def flowise(self, provider: str) -> Flowise:
        from imgpipe_orchestration.partners.flowise import Flowise

        seconds = self.settings.partner_timeout_seconds
        return self._partner(provider, seconds, lambda url, key: Flowise(url, key, timeout=seconds))

    def google_vision(self, provider: str) -> GoogleVision:
        from imgpipe_orchestration.partners.google_vision import GoogleVision

        seconds = self.settings.partner_timeout_seconds
        return self._partner(provider, seconds, lambda url, key: GoogleVision(url, key, timeout=seconds))

    def _openai(self, provider: str, seconds: float) -> OpenAIClient:
        from imgpipe_orchestration.partners.openai import OpenAIClient
        from imgpipe_orchestration.partners.openai_answers import server_name
        from imgpipe_orchestration.partners.openai_chat import OpenAIChatClient

        chat = self.models.providers[provider].dialect == "openai-chat"
        kind = OpenAIChatClient if chat else OpenAIClient
        make = partial(kind, timeout=seconds, fetcher=self.fetcher, name=server_name(provider))
        # The SDK refuses to work without a key, which a server of one's own may not want.
        return self._partner(provider, seconds, lambda url, key: make(key or "none", base_url=url))

    def _partner(self, provider: str, seconds: float, make: Callable[[str, str], Client]) -> Client:
        """The one client of a provider with this time limit, made of the provider's URL and key."""
        with self._lock:
            if (provider, seconds) not in self._partners:
                url, key = self.models.providers[provider].base_url, self.models.key(provider)
                self._partners[provider, seconds] = make(url, key)
            found: Client = self._partners[provider, seconds]
            return found

    @made_once
    def half_price(self) -> HalfPrice:
        """Batches of calls that are not urgent. A file of pictures takes long to upload."""
        from imgpipe_orchestration.billing.batches import HalfPrice
        from imgpipe_orchestration.partners.openai_batches import OpenAIBatches

        return HalfPrice(self.ledger, lambda provider: OpenAIBatches(self.openai_images(provider)))

    @property
    def foreign_main_api(self) -> bool:
        """Whether the main API is another system and not this project's gateway."""
        return self.settings.main_api_url != self.settings.gateway_url

    def close_workers(self) -> None:
        """End the worker processes, if any were started."""
        self._end("workshop", "logo_workshop")

    def close(self) -> None:
        """End the connections and processes that were opened."""
        self.close_workers()
        while self._partners:
            self._partners.popitem()[1].close()
        self._end("main_api", "fetcher", "cdn", "documents")
        self._end("engine", "pending_engine", how="dispose")

    def _end(self, *names: str, how: str = "close") -> None:
        for name in names:
            if (made := self.__dict__.pop(name, None)) is not None:
                getattr(made, how)()
