"""The gateway's cache of images: a hot image needs neither a query nor a request to the object store.

Manifests are cached by media id until `changes` invalidates them. Bytes are cached by object key, which always means
the same bytes, so that they are only evicted by others. Simultaneous requests for the same missing entry share one
load.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

from imgpipe_orchestration.media.serving.manifests import Manifest, ManifestReader
from imgpipe_orchestration.media.store import StoredVariant
from imgpipe_orchestration.services import Services

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")

_MANIFESTS = 20_000
"""Most cached manifests."""


class Bounded(Generic[Key, Value]):
    """An LRU cache that loads a missing value once, however many callers wait for it. Not thread-safe: it belongs to
    one event loop."""

    def __init__(self, limit: int, size_of: Callable[[Value], int] = lambda _: 1) -> None:
        self._limit = limit
        self._size_of = size_of
        self._kept: OrderedDict[Key, Value] = OrderedDict()
        self._loading: dict[Key, asyncio.Task[Value]] = {}
        self._size = 0
        self.hits = 0
        self.misses = 0

    def peek(self, key: Key) -> Value | None:
        """The cached value, or None; counts as a use."""
        value = self._kept.get(key)
        if value is not None:
            self.hits += 1
            self._kept.move_to_end(key)
        return value

    async def get(
        self, key: Key, load: Callable[[], Awaitable[Value]], *, keep: Callable[[Value], bool] = lambda _: True
    ) -> Value:
        """The cached value, or the result of `load`, which is cached if `keep` says so and `forget` was not called
        meanwhile."""
        value = self.peek(key)
        if value is not None:
            return value
        task = self._loading.get(key)
        if task is None:
            self.misses += 1
            task = asyncio.ensure_future(self._load(key, load, keep))
            self._loading[key] = task
        # Shielded, so that a client that disconnects does not cancel the load for others.
        return await asyncio.shield(task)

    async def _load(self, key: Key, load: Callable[[], Awaitable[Value]], keep: Callable[[Value], bool]) -> Value:
        task = asyncio.current_task()
        try:
            value = await load()
            if self._loading.get(key) is task and keep(value):
                self._keep(key, value)
            return value
        finally:
            if self._loading.get(key) is task:
                del self._loading[key]

    def _keep(self, key: Key, value: Value) -> None:
        size = self._size_of(value)
        if size > self._limit:
            return
        self.forget(key)
        self._kept[key] = value
        self._size += size
        while self._size > self._limit:
            _, old = self._kept.popitem(last=False)
            self._size -= self._size_of(old)

    def forget(self, key: Key) -> None:
        """Drop a value. A load in progress still returns to its callers, but is not cached."""
        self._loading.pop(key, None)
        old = self._kept.pop(key, None)
        if old is not None:
            self._size -= self._size_of(old)

    def clear(self) -> None:
        """Drop everything."""
        self._loading.clear()
        self._kept.clear()
        self._size = 0

    @property
    def size(self) -> int:
        """The sum of the sizes of the cached values."""
        return self._size


class HotImages:
    """The manifests and bytes of one gateway process.

    `trusted` is False while we get no notifications of changes; then every manifest is read anew.
    """

    def __init__(self, services: Services) -> None:
        self._services = services
        self._reader = ManifestReader(services.engine)
        self.trusted = False
        self.lost = 0
        """Requests for variants whose objects were gone or damaged."""
        self.manifests: Bounded[int, Manifest] = Bounded(_MANIFESTS)
        self.bytes: Bounded[str, bytes] = Bounded(services.settings.serve_cache_bytes, len)

    async def manifest(self, media_id: int) -> Manifest:
        """An image's manifest. One without variants is not cached, as it is about to change.

        Raises:
            NotFound: no such media.
            BackendUnavailable: not cached, and the database is away.
        """
        return await self.manifests.get(
            media_id,
            lambda: self._reader.read(media_id),
            keep=lambda found: self.trusted and bool(found.variants),
        )

    async def content(self, variant: StoredVariant) -> bytes:
        """A variant's bytes.

        Raises:
            NotFound: the object is gone.
            NotWhole: the object is not this variant.
            BackendUnavailable: not cached, and the object store is away.
        """
        key = variant.object_key
        return await self.bytes.get(key, lambda: self._services.media_bucket.get_async(key, size=variant.bytes))

    def forget(self, media_id: int) -> None:
        """Invalidate an image that changed, in this process or another."""
        self.manifests.forget(media_id)

    def distrust(self) -> None:
        """We no longer get notifications of changes, so cached manifests may be wrong."""
        self.trusted = False
        self.manifests.clear()

    def trust(self) -> None:
        """From now on we get notifications of changes; manifests that were read before may have missed some."""
        self.manifests.clear()
        self.trusted = True

    async def close(self) -> None:
        """Close the connection to the database."""
        await self._reader.close()
