"""Tells a gateway which images changed, whoever changed them: PostgreSQL's NOTIFY on the channel `media_changed`.

The triggers of the media tables send it at commit, so a process that heard nothing has missed nothing, as long as its
connection lives. When the connection is lost, nothing kept is trusted until it is back. A connection can be lost
without a word (a firewall that forgot it, a pooler between), so a gateway calls itself every few seconds: when it does
not hear itself, it hears nobody.
"""

from __future__ import annotations

import asyncio
import secrets
import time

import psycopg

from imgpipe_orchestration.logs import logger
from imgpipe_orchestration.media.serving.hot import HotImages
from imgpipe_orchestration.services import Services
from imgpipe_orchestration.storage.rows import connect_async

log = logger(__name__)

CHANNEL = "media_changed"
RECONNECT_SECONDS = 1.0
REMIND_SECONDS = 60.0
"""Until the log has the same reason again: a database that is away for a night would fill it, second by second."""
CALL_SECONDS = 3.0
"""From one call to the next, and the longest that an echo may take: the sum is how long a change can go unheard."""


class NotHeard(OSError):
    """Our own call did not come back."""


async def follow_changes(services: Services, hot: HotImages) -> None:
    """Keep `hot` true until cancelled."""
    told, told_at = "", 0.0
    while True:
        try:
            async with await connect_async(services.engine) as connection:
                await _listen(connection, hot)
        except (psycopg.Error, OSError) as error:
            if repr(error) != told or time.monotonic() - told_at > REMIND_SECONDS:
                told, told_at = repr(error), time.monotonic()
                log.warning("no news of changed images; manifests are read anew", extra={"error": told})
        finally:
            hot.distrust()
        await asyncio.sleep(RECONNECT_SECONDS)


async def _listen(connection: psycopg.AsyncConnection, hot: HotImages) -> None:
    """
    Raises:
        NotHeard, TimeoutError, psycopg.Error: the connection is of no use any more.
    """
    echo = f"echo_{secrets.token_hex(8)}"
    await connection.execute(f"listen {CHANNEL}; listen {echo}")
    hot.trust()
    while True:
        async with asyncio.timeout(CALL_SECONDS):
            await connection.execute(f"notify {echo}")
        heard = False
        async for change in connection.notifies(timeout=CALL_SECONDS):
            if change.channel == echo:
                heard = True
            else:
                hot.forget(int(change.payload))
        if not heard:
            raise NotHeard("the database does not tell of changes over this connection")
