"""Attributes that are computed at their first use, once, also when several threads use them at the same moment."""

from functools import cached_property
from threading import RLock
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    made_once = cached_property
else:

    class made_once(cached_property):
        """`cached_property` with a lock, as until Python 3.11. Without one, two threads may both compute the value: of
        two pools of processes nobody would close the first."""

        _making = RLock()
        """One for all attributes; reentrant, because one may be computed from another."""

        def __get__(self, instance: Any, owner: type[Any] | None = None) -> Any:
            with self._making:
                return super().__get__(instance, owner)
