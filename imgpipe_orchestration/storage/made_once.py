"""Attributes that are computed at their first use, once, also when several threads use them at the same moment."""

from functools import cached_property
from threading import RLock
from typing import Any, Self, TypeVar, overload

_T_co = TypeVar("_T_co", covariant=True)


class made_once(cached_property[_T_co]):
    """`cached_property` with a lock, as until Python 3.11. Without one, two threads may both compute the value: of two
    pools of processes nobody would close the first."""

    _making = RLock()
    """One for all attributes; reentrant, because one may be computed from another."""

    @overload
    def __get__(self, instance: None, owner: type[Any] | None = None) -> Self: ...
    @overload
    def __get__(self, instance: object, owner: type[Any] | None = None) -> _T_co: ...
    def __get__(self, instance: object | None, owner: type[Any] | None = None) -> Self | _T_co:
        if instance is None:
            return self
        with self._making:
            return super().__get__(instance, owner)
