"""Tells a gateway which images changed, whoever changed them: PostgreSQL's NOTIFY on the channel `media_changed`.

The triggers of the media tables send it at commit, so a process that heard nothing has missed nothing, as long as its
connection lives. When the connection is lost, nothing kept is trusted until it is back.
"""

from __future__ import annotations

import asyncio

import psycopg

from imgpipe_orchestration.logs import logger
from imgpipe_orchestration.media.serving.hot import HotImages
from imgpipe_orchestration.services import Services

log = logger(__name__)

CHANNEL = "media_changed"
RECONNECT_SECONDS = 1.0


async def follow_changes(backends: Services, hot: HotImages) -> None:
    """Keep `hot` true until cancelled."""
    url = backends.engine.url.set(drivername="postgresql").render_as_string(hide_password=False)
    while True:
        try:
            async with await psycopg.AsyncConnection.connect(url, autocommit=True, connect_timeout=5) as connection:
                await connection.execute(f"listen {CHANNEL}")
                hot.trust()
                async for change in connection.notifies():
                    hot.forget(int(change.payload))
        except (psycopg.Error, OSError) as error:
            log.warning("no news of changed images; manifests are read anew", extra={"error": str(error)})
        finally:
            hot.distrust()
        await asyncio.sleep(RECONNECT_SECONDS)
