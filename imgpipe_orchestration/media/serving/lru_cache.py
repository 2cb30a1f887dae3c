"""An LRU cache whose values are loaded by coroutines."""

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from contextlib import suppress
from typing import Generic, TypeVar

from cachetools import LRUCache

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


class AsyncLruCache(Generic[Key, Value]):
    """An LRU cache that loads a missing value once, however many callers wait for it. Not thread-safe: it belongs to
    one event loop."""

    def __init__(self, limit: int, size_of: Callable[[Value], int] | None = None) -> None:
        """
        Args:
            limit: the most values, or with `size_of` the largest sum of their sizes.
        """
        self._kept: LRUCache[Key, Value] = LRUCache(limit, getsizeof=size_of)
        self._loading: dict[Key, asyncio.Task[Value]] = {}
        self.hits = 0
        self.misses = 0

    @property
    def size(self) -> int:
        """The sum of the sizes of the cached values."""
        return int(self._kept.currsize)

    def peek(self, key: Key) -> Value | None:
        """The cached value, or None; counts as a use."""
        try:
            value = self._kept[key]
        except KeyError:
            return None
        self.hits += 1
        return value

    async def get(
        self, key: Key, load: Callable[[], Awaitable[Value]], *, keep: Callable[[Value], bool] = lambda _: True
    ) -> Value:
        """The cached value, or the result of `load`, which is cached if `keep` says so and `forget` was not called
        meanwhile."""
        value = self.peek(key)
        if value is not None:
            return value
        task = self._loading.get(key)
        if task is None:
            self.misses += 1
            task = asyncio.ensure_future(self._load(key, load, keep))
            self._loading[key] = task
        # Shielded, so that a client that disconnects does not cancel the load for others.
        return await asyncio.shield(task)

    async def _load(self, key: Key, load: Callable[[], Awaitable[Value]], keep: Callable[[Value], bool]) -> Value:
        task = asyncio.current_task()
        try:
            value = await load()
            if self._loading.get(key) is task and keep(value):
                with suppress(ValueError):  # it is larger than the limit
                    self._kept[key] = value
            return value
        finally:
            if self._loading.get(key) is task:
                del self._loading[key]

    def forget(self, key: Key) -> Value | None:
        """Drop a value, and return it. A load in progress still returns to its callers, but is not cached."""
        self._loading.pop(key, None)
        return self._kept.pop(key, None)

    def clear(self) -> None:
        """Drop everything."""
        self._loading.clear()
        self._kept.clear()
