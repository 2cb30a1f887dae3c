"""What one paid call consumed, in the units the provider bills by."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import astuple, dataclass
from typing import Any, Generic, TypeVar

from imgpipe_orchestration.errors import ImgpipeError

Value = TypeVar("Value")


@dataclass(frozen=True, slots=True)
class Usage:
    """Consumption as the provider reported it; zero where it reported none.

    `units` counts what is billed by the piece (Google Vision: a feature of an image; Flowise: a call). Image and cached
    tokens are included in `input_tokens`.
    """

    model: str = ""
    input_tokens: int = 0
    output_tokens: int = 0
    input_image_tokens: int = 0
    cached_tokens: int = 0
    units: float = 0

    def __add__(self, later: "Usage") -> "Usage":
        return Usage(later.model, *(a + b for a, b in zip(astuple(self)[1:], astuple(later)[1:], strict=True)))

    @property
    def standin(self) -> bool:
        """Whether a stand-in answered, so that nothing was spent; costs are those of the real provider."""
        return self.model.endswith("-standin")


@dataclass(frozen=True, slots=True)
class Priced(Generic[Value]):
    """An answer, and what it consumed."""

    value: Value
    usage: Usage
    raw: Any = None
    """The whole response as the API sent it, where that is to be kept with the answer."""


@contextmanager
def charged(usage: Usage) -> Iterator[None]:
    """Errors over an answer that was charged say so, besides what they say of a later one."""
    try:
        yield
    except ImgpipeError as error:
        error.usage = usage + error.usage if error.usage else usage
        raise
