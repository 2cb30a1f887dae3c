"""Reading manifests from PostgreSQL on the event loop. With a thread and SQLAlchemy's pool an uncached image would take
a third longer.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, LiteralString

import psycopg
from sqlalchemy import Engine

from imgpipe_orchestration.errors import BackendUnavailable, NotFound, NotMigrated
from imgpipe_orchestration.media.serving.decision import Decision, Shelves, Wish, decide, shelved
from imgpipe_orchestration.media.serving.negotiation import LONGEST_KEPT
from imgpipe_orchestration.media.variants import COLUMNS, StoredVariant, version_of
from imgpipe_orchestration.storage.deletions import Deleted
from imgpipe_orchestration.storage.rows import connect_async, not_migrated

_READ_SECONDS = 5.0
"""How long a request waits for the database."""
_MANIFEST = f"""
    select f.private, f.held, {COLUMNS}
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

    def decide(self, wish: Wish, accept: str | None) -> Decision:
        """The variant for a wish.

        Raises:
            NotFound: as `decision.decide`.
        """
        if len(accept or "") > LONGEST_KEPT:
            return decide(self.variants, wish, accept)
        return _remembered(self, wish, accept)

    def is_other_than(self, version: str | None) -> bool:
        """Whether a URL names a version of the image, and another one than this."""
        return version is not None and version != _version(self)


@lru_cache(maxsize=4096)
def _remembered(manifest: Manifest, wish: Wish, accept: str | None) -> Decision:
    return decide(manifest.variants, wish, accept)


@lru_cache(maxsize=4096)
def _version(manifest: Manifest) -> str:
    return version_of(variant for shelf in manifest.variants.values() for variant in shelf.values())


class ManifestReader:
    """Reads over one connection, opened on first use. Simultaneous reads wait for each other, a fraction of a
    millisecond each. Not thread-safe: it belongs to one event loop."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._connection: psycopg.AsyncConnection | None = None
        self._connecting = asyncio.Lock()

    async def read(self, media_id: int) -> Manifest:
        """An image's manifest.

        Raises:
            Deleted: it was deleted.
            NotFound: no such media.
            BackendUnavailable, NotMigrated: the database cannot be reached, or has no such tables yet.
        """
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
            if await asyncio.to_thread(not_migrated, self._engine, error):
                raise NotMigrated(detail=str(error).splitlines()[0]) from error
            raise
        if deleted:
            raise Deleted(f"Media {media_id} was deleted.")
        if not rows:
            raise NotFound(f"There is no media {media_id}.")
        variants = [StoredVariant._make(row[2:]) for row in rows if row[2] is not None]
        return Manifest(rows[0][0], rows[0][1], shelved(variants))

    async def _rows(self, statement: LiteralString, parameter: int | str) -> list[tuple[Any, ...]]:
        async with self._connecting:
            if self._connection is None or self._connection.closed:
                self._connection = await connect_async(self._engine)
            connection = self._connection
        try:
            cursor = await connection.execute(statement, (parameter,))
            return await cursor.fetchall()
        except asyncio.CancelledError:  # it took too long: do not use this one again, which psycopg closes
            if self._connection is connection:
                self._connection = None
            raise

    async def close(self) -> None:
        """Close the connection, if there is one."""
        if self._connection is not None:
            await self._connection.close()
