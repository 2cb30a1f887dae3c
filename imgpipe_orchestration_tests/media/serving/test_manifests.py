"""One connection for all reads of manifests, also where one of them takes too long."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest
from sqlalchemy import Engine

from imgpipe_orchestration.errors import BackendUnavailable, NotFound
from imgpipe_orchestration.media.serving import manifests


class _Connection:
    closed = False

    def __init__(self, *, hangs: bool) -> None:
        self.hangs = hangs

    async def execute(self, *_: object) -> _Connection:
        if self.hangs:
            await asyncio.sleep(60)
        return self

    async def fetchall(self) -> list[Any]:
        return []


def test_a_read_that_takes_too_long_gives_up_its_own_connection_and_no_later_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made: list[_Connection] = []

    async def connect(_: Engine) -> _Connection:
        made.append(_Connection(hangs=not made))
        return made[-1]

    monkeypatch.setattr(manifests, "connect_async", connect)
    monkeypatch.setattr(manifests, "_READ_SECONDS", 0.3)

    async def all_of_them() -> list[type[BaseException]]:
        reader = manifests.ManifestReader(cast("Engine", None))

        async def read(after: float) -> type[BaseException]:
            await asyncio.sleep(after)
            with pytest.raises((BackendUnavailable, NotFound)) as raised:
                await reader.read(1)
            return raised.type

        return await asyncio.gather(*[read(after) for after in (0.0, 0.2, 0.4, 0.6)])

    late, also_late, third, fourth = asyncio.run(all_of_them())
    assert (late, also_late) == (BackendUnavailable, BackendUnavailable)
    assert (third, fourth) == (NotFound, NotFound)
    assert len(made) == 2
