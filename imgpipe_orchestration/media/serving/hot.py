"""The gateway's cache of images: a hot image needs neither a query nor a request to the object store.

Manifests are cached by media id until `follow_changes` invalidates them. Bytes are cached by object key, which always
means the same bytes, so that they are only evicted by others. Simultaneous requests for the same missing entry share
one load.

PostgreSQL announces changes with NOTIFY on the channel `media_changed`. Triggers on the media tables send notifications
at commit, so none are missed while the connection is alive. When it is lost, cached manifests are not trusted until it
is back. A connection can be lost silently (by a firewall, or a pooler in between), so the gateway notifies itself every
few seconds and checks that the notification arrives. It also polls for images deleted or held in the last minute,
because those must never be shown. So an image is served from memory for at most 2 * CALL_SECONDS without a database
that confirms that it is public.
"""

import asyncio
import secrets
import time
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, LiteralString

import psycopg

from imgpipe_orchestration.errors import BackendUnavailable, NotFound, NotMigrated
from imgpipe_orchestration.media.serving.decision import LONGEST_KEPT, Decision, Shelves, Wish, decide, shelved
from imgpipe_orchestration.media.serving.lru_cache import AsyncLruCache
from imgpipe_orchestration.media.store import VARIANT_COLUMNS, StoredVariant, version_of
from imgpipe_orchestration.storage.deletions import Deleted
from imgpipe_orchestration.storage.rows import connect_async, not_migrated
from imgpipe_orchestration.telemetry.logs import logger
from imgpipe_orchestration.wiring.services import Services

log = logger(__name__)

_MANIFESTS = 20_000
"""Most cached manifests."""
_CACHE_BYTES = 256 * 1024 * 1024
"""Bytes of images that one gateway keeps."""
_ORIGINALS = 4
"""Originals, each as large as an upload may be, that are read at the same time for images that are not ready."""
_READ_SECONDS = 5.0
"""How long a request waits for the database."""
_MANIFEST = f"""
    select f.private, f.held, {VARIANT_COLUMNS}
    from live_media f left join media_variants v on v.media_id = f.id where f.id = %s
"""
"""Whether a media file is private or held, and its variants, as a statement for psycopg. It gives a row for each
variant, one row without a variant if there are none, and no row if there is no such file. Every uncached image waits
for this, so it reads nothing else: the file's other columns, ordering and JSON would double its time."""
_DELETED = "select 1 from deletions where what = %s"


@dataclass(frozen=True, slots=True, eq=False)
class Manifest:
    """An image's variants (none before it is ready), and whether it is private or held. Equal only to itself, so that
    it is hashed at once."""

    private: bool
    held: bool
    variants: Shelves
    version: str
    """See `version_of`."""

    def decide(self, wish: Wish, accept: str | None) -> Decision:
        """The variant for a wish.

        Raises:
            NotFound: as `decision.decide`.
        """
        longest = LONGEST_KEPT  # compared one by one, for every image that is served waits for this
        if len(accept or "") > longest or len(wish.signature or "") > longest or len(wish.version or "") > longest:
            return decide(self.variants, wish, accept)
        return _remembered(self, wish, accept)


@lru_cache(maxsize=4096)
def _remembered(manifest: Manifest, wish: Wish, accept: str | None) -> Decision:
    return decide(manifest.variants, wish, accept)


class HotImages:
    """The manifests and bytes of one gateway process.

    `trusted` is False while we get no notifications of changes; then every manifest is read anew.
    """

    def __init__(self, services: Services) -> None:
        self._services = services
        self._connection: psycopg.AsyncConnection | None = None
        self._connecting = asyncio.Lock()
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
            lambda: self._read(media_id),
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
        known = self.manifests.forget(media_id)
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
        """Close the connection to the database, if there is one."""
        if self._connection is not None:
            await self._connection.close()

    # Manifests are read on the event loop: with a thread and SQLAlchemy's pool an uncached image would take a third
    # longer. There is one connection, opened on first use; simultaneous reads wait for each other, a fraction of a
    # millisecond each.

    async def _read(self, media_id: int) -> Manifest:
        try:
            async with asyncio.timeout(_READ_SECONDS):
                try:
                    rows = await self._rows(_MANIFEST, media_id)
                except psycopg.OperationalError:  # the connection was lost, usually while it was idle
                    rows = await self._rows(_MANIFEST, media_id)
                deleted = not rows and await self._rows(_DELETED, f"media/{media_id}")
        except (psycopg.OperationalError, psycopg.InterfaceError, TimeoutError) as error:
            raise BackendUnavailable("The database cannot be reached; try again.", detail=str(error)) from error
        except psycopg.ProgrammingError as error:
            if await asyncio.to_thread(not_migrated, self._services.engine, error):
                raise NotMigrated(detail=str(error).splitlines()[0]) from error
            raise
        if deleted:
            raise Deleted(f"Media {media_id} was deleted.")
        if not rows:
            raise NotFound(f"There is no media {media_id}.")
        variants = [StoredVariant._make(row[2:]) for row in rows if row[2] is not None]
        return Manifest(rows[0][0], rows[0][1], shelved(variants), version_of(variants))

    async def _rows(self, statement: LiteralString, parameter: int | str) -> list[tuple[Any, ...]]:
        async with self._connecting:
            if self._connection is None or self._connection.closed:
                self._connection = await connect_async(self._services.engine)
            connection = self._connection
        try:
            cursor = await connection.execute(statement, (parameter,))
            return await cursor.fetchall()
        except asyncio.CancelledError:  # it took too long: do not use this one again, which psycopg closes
            if self._connection is connection:
                self._connection = None
            raise


# --- following changes ------------------------------------------------------------------------------------------------


CHANNEL = "media_changed"
RECONNECT_SECONDS = 1.0
REMIND_SECONDS = 60.0
"""Time before the same error is logged again, so that a database that is away for a night does not fill the log."""
CALL_SECONDS = 2.0
"""Interval of our own notifications, and the longest that one may take; a change can be missed for the sum of both."""
_DELETED_OF_LATE = """
    select item from deletions where kind = 'media' and trashed_at > now() - interval '60 seconds'
    union select item from verdicts where kind = 'media' and holding and moved_at > now() - interval '60 seconds'
"""


async def follow_changes(services: Services, hot: HotImages) -> None:
    """Keep `hot` up to date until cancelled."""
    logged, logged_at = "", 0.0
    while True:
        try:
            async with await connect_async(services.engine) as connection:
                await _listen(connection, hot)
        except (psycopg.Error, OSError) as error:
            if repr(error) != logged or time.monotonic() - logged_at > REMIND_SECONDS:
                logged, logged_at = repr(error), time.monotonic()
                log.warning("no news of changed images; manifests are read anew", extra={"error": logged})
        finally:
            hot.distrust()
        await asyncio.sleep(RECONNECT_SECONDS)


async def _listen(connection: psycopg.AsyncConnection, hot: HotImages) -> None:
    echo = f"echo_{secrets.token_hex(8)}"
    await connection.execute(f"listen {CHANNEL}; listen {echo}")
    hot.trust()
    while True:
        # Distrust at once: when a server hangs, psycopg first spends ten seconds trying to cancel the query.
        late = asyncio.get_running_loop().call_later(CALL_SECONDS, hot.distrust)
        try:
            async with asyncio.timeout(CALL_SECONDS):
                deleted = await (await connection.execute(_DELETED_OF_LATE)).fetchall()
                await connection.execute(f"notify {echo}")
        finally:
            late.cancel()
        if not hot.trusted:
            raise TimeoutError("the database took too long to answer")
        for (media_id,) in deleted:
            hot.forget(media_id)
        heard = False
        async for change in connection.notifies(timeout=CALL_SECONDS):
            if change.channel == echo:
                heard = True
            elif change.payload.isdecimal():
                hot.forget(int(change.payload))
            else:
                log.warning("no id of an image in a notification", extra={"payload": change.payload[:100]})
        if not heard:
            raise TimeoutError("the database does not tell of changes over this connection")
