"""An LRU cache whose values are loaded by coroutines."""

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


class AsyncLruCache(Generic[Key, Value]):
    """An LRU cache that loads a missing value once, however many callers wait for it. Not thread-safe: it belongs to
    one event loop."""

    def __init__(self, limit: int, size_of: Callable[[Value], int] = lambda _: 1) -> None:
        self._limit = limit
        self._size_of = size_of
        self._kept: OrderedDict[Key, Value] = OrderedDict()
        self._loading: dict[Key, asyncio.Task[Value]] = {}
        self.size = 0
        """The sum of the sizes of the cached values."""
        self.hits = 0
        self.misses = 0

    def peek(self, key: Key) -> Value | None:
        """The cached value, or None; counts as a use."""
        value = self._kept.get(key)
        if value is not None:
            self.hits += 1
            self._kept.move_to_end(key)
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
            size = self._size_of(value)
            if self._loading.get(key) is task and keep(value) and size <= self._limit:
                self.forget(key)
                self._kept[key] = value
                self.size += size
                while self.size > self._limit:
                    _, old = self._kept.popitem(last=False)
                    self.size -= self._size_of(old)
            return value
        finally:
            if self._loading.get(key) is task:
                del self._loading[key]

    def forget(self, key: Key) -> Value | None:
        """Drop a value, and return it. A load in progress still returns to its callers, but is not cached."""
        self._loading.pop(key, None)
        old = self._kept.pop(key, None)
        if old is not None:
            self.size -= self._size_of(old)
        return old

    def clear(self) -> None:
        """Drop everything."""
        self._loading.clear()
        self._kept.clear()
        self.size = 0
