"""Invalidates a gateway's cache when images change, by PostgreSQL's NOTIFY on the channel `media_changed`.

Triggers on the media tables send notifications at commit, so none are missed while the connection is alive. When it is
lost, cached manifests are not trusted until it is back. A connection can be lost silently (by a firewall, or a pooler
in between), so the gateway notifies itself every few seconds and checks that the notification arrives. What was deleted
or held back is asked for as well, because nobody may be shown that for any reason. So an image is served from memory
for at most 2 * CALL_SECONDS without a database that confirms that it is public.
"""

from __future__ import annotations

import asyncio
import secrets
import time

import psycopg

from imgpipe_orchestration.media.serving.hot import HotImages
from imgpipe_orchestration.services import Services
from imgpipe_orchestration.storage.rows import connect_async
from imgpipe_orchestration.telemetry.logs import logger

log = logger(__name__)

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


class NotHeard(OSError):
    """Our own notification did not arrive."""


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
    """
    Raises:
        NotHeard, TimeoutError, psycopg.Error: the connection no longer works.
    """
    echo = f"echo_{secrets.token_hex(8)}"
    await connection.execute(f"listen {CHANNEL}; listen {echo}")
    hot.trust()
    while True:
        # At once: of a server that hangs psycopg takes leave for ten seconds, by asking it to cancel the query.
        late = asyncio.get_running_loop().call_later(CALL_SECONDS, hot.distrust)
        try:
            async with asyncio.timeout(CALL_SECONDS):
                deleted = await (await connection.execute(_DELETED_OF_LATE)).fetchall()
                await connection.execute(f"notify {echo}")
        finally:
            late.cancel()
        if not hot.trusted:
            raise NotHeard("the database took too long to answer")
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
            raise NotHeard("the database does not tell of changes over this connection")
