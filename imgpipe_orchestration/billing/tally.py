"""What paid calls cost within a block, for the metadata of the asset that needed them."""

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from decimal import Decimal


@dataclass
class Tally:
    """Sums by operation, from all threads that carry the block's context."""

    uses: list[tuple[str, Decimal, bool]] = field(default_factory=list)
    """Operation, US dollars, and whether it was bought or reused."""

    def figures(self, operations: Collection[str] | None = None) -> dict[str, float]:
        """Calls bought, their cost, and what reused answers had cost: of some operations, or of all."""

        mine = [use for use in self.uses if operations is None or use[0] in operations]
        return {
            "cost_usd": round(float(sum(usd for _, usd, bought in mine if bought)), 6),
            "calls": sum(bought for _, _, bought in mine),
            "saved_by_ledger_usd": round(float(sum(usd for _, usd, bought in mine if not bought)), 6),
        }


_current: ContextVar[Tally | None] = ContextVar("tally", default=None)


@contextmanager
def tallied() -> Iterator[Tally]:
    """Count what is bought within the block, also by work that `tracing.carried` takes to other threads."""
    token = _current.set(tally := Tally())
    try:
        yield tally
    finally:
        _current.reset(token)


def note(operation: str, usd: Decimal | None, *, bought: bool) -> None:
    """Count a use, where somebody counts."""
    if (tally := _current.get()) is not None:
        tally.uses.append((operation, usd or Decimal(0), bought))
