"""Attributes that are made when they are first asked for: once, however many threads ask at that moment."""

from __future__ import annotations

from functools import cached_property
from threading import RLock
from typing import Any, Self, TypeVar, overload

_T_co = TypeVar("_T_co", covariant=True)


class made_once(cached_property[_T_co]):
    """`cached_property` as it was until Python 3.11. From 3.12 on each thread that asks before the value is there makes
    one of its own: of a pool of processes all but the last would be ended by nobody."""

    _making = RLock()
    """One for all, and entered again by what is made of something else that is made once."""

    @overload
    def __get__(self, instance: None, owner: type[Any] | None = None) -> Self: ...
    @overload
    def __get__(self, instance: object, owner: type[Any] | None = None) -> _T_co: ...
    def __get__(self, instance: object | None, owner: type[Any] | None = None) -> Self | _T_co:
        if instance is None:
            return self
        with self._making:
            return super().__get__(instance, owner)
