"""The LRU cache: what is kept, and what is not."""

import asyncio

from imgpipe_orchestration.media.serving.lru_cache import AsyncLruCache


def test_what_changes_while_it_is_loaded_is_given_to_who_waits_and_not_kept() -> None:
    async def changed() -> None:
        cache: AsyncLruCache[int, str] = AsyncLruCache(10)
        asked, answered = asyncio.Event(), asyncio.Event()

        async def load() -> str:
            asked.set()
            await answered.wait()
            return "before the change"

        waiting = asyncio.create_task(cache.get(1, load))
        await asked.wait()
        cache.forget(1)
        answered.set()
        assert await waiting == "before the change"
        assert cache.peek(1) is None
        assert await cache.get(1, load) == cache.forget(1) == "before the change"
        assert (cache.hits, cache.forget(1)) == (0, None)

    asyncio.run(changed())
