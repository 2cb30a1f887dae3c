"""The gateway's cache of images: a hot image needs neither a query nor a request to the object store.

Manifests are cached by media id until `changes` invalidates them. Bytes are cached by object key, which always means
the same bytes, so that they are only evicted by others. Simultaneous requests for the same missing entry share one
load.
"""

from __future__ import annotations

import asyncio

from imgpipe_orchestration.media.serving.manifests import Manifest, ManifestReader
from imgpipe_orchestration.media.variants import StoredVariant
from imgpipe_orchestration.services import Services
from imgpipe_orchestration.web.lru_cache import AsyncLruCache

_MANIFESTS = 20_000
"""Most cached manifests."""
_CACHE_BYTES = 256 * 1024 * 1024
"""Bytes of images that one gateway keeps."""


_ORIGINALS = 4
"""Originals, each as large as an upload may be, that are read at the same time for images that are not ready."""


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
        self.originals = asyncio.Semaphore(_ORIGINALS)
        """To be held while an original is in memory."""
        self.manifests: AsyncLruCache[int, Manifest] = AsyncLruCache(_MANIFESTS)
        self.bytes: AsyncLruCache[str, bytes] = AsyncLruCache(_CACHE_BYTES, len)

    async def manifest(self, media_id: int) -> Manifest:
        """An image's manifest. One without variants is not cached, as it is about to change.

        Raises:
            Deleted: it was deleted.
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
        """Invalidate an image that changed, in this process or another; its bytes too, which a deleted one must not
        leave in memory."""
        known = self.manifests.peek(media_id)
        self.manifests.forget(media_id)
        for shelf in known.variants.values() if known else ():
            for variant in shelf.values():
                self.bytes.forget(variant.object_key)

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
