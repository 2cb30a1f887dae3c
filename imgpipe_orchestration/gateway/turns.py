"""Turns of uploads: how many are worked on at once."""

from __future__ import annotations

import asyncio

AT_ONCE = 16
"""Uploads that are worked on at once, from the last byte of their body to their answer. Without this limit a thousand
that arrive together are all answered at the end, later than clients wait, and meanwhile they take every thread from
other requests and the event loop's time from the health probes."""
SHARE_BYTES = 16 * 1024 * 1024
"""Bytes of a body for which an upload takes one of the AT_ONCE places, and another for each further part. An upload's
files are in memory while it is worked on: together up to 256 MB."""


class Turns:
    """The places, taken in the order of asking. For one event loop."""

    def __init__(self) -> None:
        self._free = asyncio.Semaphore(AT_ONCE)
        self._line = asyncio.Lock()

    async def take(self, size: int) -> int:
        """Wait for the places of a body of `size` bytes; returns how many were taken."""
        wanted, taken = min(AT_ONCE, max(1, -(-size // SHARE_BYTES))), 0
        async with self._line:  # two that each had some would wait for each other for ever
            try:
                while taken < wanted:
                    await self._free.acquire()
                    taken += 1
            except asyncio.CancelledError:
                self.give_back(taken)
                raise
        return taken

    def give_back(self, places: int) -> None:
        """Let others begin."""
        for _ in range(places):
            self._free.release()
