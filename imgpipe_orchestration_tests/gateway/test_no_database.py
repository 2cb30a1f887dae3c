"""A gateway that has no database: what it says, and how often."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest

from imgpipe_orchestration.media.serving.changes import follow_changes
from imgpipe_orchestration.media.serving.hot import HotImages
from imgpipe_orchestration.services import Services
from imgpipe_orchestration.settings import Settings


def test_one_whose_database_is_away_does_not_fill_its_log(caplog: pytest.LogCaptureFixture) -> None:
    tries = asyncio.run(_follow_until_refused(3))
    assert tries >= 3
    said = [record.message for record in caplog.records if record.name.endswith("serving.changes")]
    assert said == ["no news of changed images; manifests are read anew"]


async def _follow_until_refused(times: int) -> int:
    """Listen for changes at a server that hangs up on whoever comes; how often it did."""
    refused = 0
    enough = asyncio.Event()

    async def refuse(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal refused
        refused += 1
        writer.close()
        if refused > times:  # what was said of the one before is in the log
            enough.set()

    async with await asyncio.start_server(refuse, "127.0.0.1") as server:
        port = server.sockets[0].getsockname()[1]
        services = Services(Settings(database_url=f"postgresql://127.0.0.1:{port}/imgpipe"))
        following = asyncio.create_task(follow_changes(services, HotImages(services)))
        await asyncio.wait_for(enough.wait(), 60)
        following.cancel()
        with suppress(asyncio.CancelledError):
            await following
        services.close()
    return refused
