"""A paid call, who makes it, and what comes of it, as `paid_calls` and `paid_call_uses` keep them; asking the models
of a task in their order, until one answers."""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from decimal import Decimal
from enum import StrEnum
from typing import Any, Self, TypeVar

from sqlalchemy import Row

from imgpipe_orchestration.errors import PartnerUnavailable, RateLimited, SpendingPaused, UnreadableAnswer
from imgpipe_orchestration.partners.models import Choice
from imgpipe_orchestration.partners.usage import Usage
from imgpipe_orchestration.telemetry.logs import logger

log = logger(__name__)

Answered = TypeVar("Answered")


class UseOutcome(StrEnum):
    """How one use of a call ended."""

    BOUGHT = "bought"  # the provider was asked and answered; with an error where the answer is of no use
    REUSED = "reused"  # a committed answer was there
    FAILED = "failed"  # the provider was asked, and gave no answer that it charges for, as far as is known
    LOST = "lost"  # an earlier buyer died while it was asking: possibly paid for nothing


@dataclass(frozen=True, slots=True)
class PaidCall:
    """The identity of a call. Equal calls are bought once, whoever asks."""

    provider: str
    operation: str
    model: str
    input_hash: str
    parameter_hash: str

    @classmethod
    def of(
        cls,
        provider: str,
        operation: str,
        model: str,
        *,
        inputs: Iterable[bytes | str],
        parameters: Mapping[str, Any] | None = None,
    ) -> Self:
        """Hash the inputs (images, prompts; in order) and the parameters (JSON; in any order).

        Everything that changes the answer must be in one of the two, including the schema that is asked for.
        """
        digest = hashlib.sha256()
        for part in inputs:
            data = part.encode() if isinstance(part, str) else part
            digest.update(len(data).to_bytes(8, "big") + data)
        canonical = json.dumps(parameters or {}, sort_keys=True, separators=(",", ":"))
        return cls(provider, operation, model, digest.hexdigest(), hashlib.sha256(canonical.encode()).hexdigest())

    @property
    def key(self) -> str:
        """One hash over all five: the row's primary key, and a good name for a stored binary answer."""
        # Answers to safe search were bought as annotate before the two were told apart.
        operation = "annotate" if self.operation == "safe_search" else self.operation
        parts = (self.provider, operation, self.model, self.input_hash, self.parameter_hash)
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Buyer:
    """For whom a call is made: `item` is named by its feature ("media/123"), `tenant` is who pays in the end. One
    that is `patient` reads its answers again at each look at a batch; what that saves is counted once."""

    pipeline: str
    item: str
    tenant: str = ""
    patient: bool = False


@dataclass(frozen=True, slots=True)
class Purchase:
    """The provider's answer: a JSON-serialisable `value`, the key of the object where it was stored, or both."""

    usage: Usage
    value: Any = None
    object_key: str | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """A committed answer."""

    value: Any
    object_key: str | None
    usage: Usage
    cost_usd: Decimal | None
    """Its cost when it was bought; None when the price is unknown."""
    bought: bool
    """False when an earlier purchase was reused, which costs nothing."""


def use(
    call: PaidCall,
    buyer: Buyer,
    outcome: UseOutcome,
    *,
    usage: Usage | None = None,
    cost: Decimal | None = None,
    seconds: float = 0.0,
    error: str | None = None,
    saved: Decimal | None = None,
    half: bool = False,
) -> dict[str, Any]:
    """The values of `ledger_sql.RECORD`."""
    usage = usage or Usage()
    return {
        **asdict(call),
        **asdict(buyer),
        "key": call.key,
        "outcome": outcome.value,
        "standin": usage.standin,
        "input_tokens": usage.input_tokens if outcome is UseOutcome.BOUGHT else 0,
        "output_tokens": usage.output_tokens if outcome is UseOutcome.BOUGHT else 0,
        "cost": cost,
        "seconds": seconds,
        "error": error,
        "saved": saved,
        "half_price": half,
    }


def usage_of(row: Row[Any]) -> Usage:
    return Usage(
        model=row.answered_by or "",
        input_tokens=row.input_tokens,
        output_tokens=row.output_tokens,
        input_image_tokens=row.input_image_tokens,
        cached_tokens=row.cached_tokens,
        units=float(row.units),
    )


def answer_of(row: Row[Any], *, bought: bool) -> Answer:
    return Answer(row.value, row.object_key, usage_of(row), row.cost_usd, bought=bought)


def nobody(task: str) -> SpendingPaused:
    """The error where a task has no model."""
    return SpendingPaused(f"No model answers the task {task}: it waits until MODELS_FILE names one, or a key is set")


def first_answer(choices: Sequence[Choice], ask: Callable[[Choice], Answered], *, task: str) -> tuple[Choice, Answered]:
    """The first model that answers, and its answer.

    A provider that is away, busy, out of money or does not know the model passes the question on to the next one. A
    refusal for the content, and an answer that is of no use, do not: the question would be paid for again.

    Raises:
        SpendingPaused: the task has no model.
        ImgpipeError: of the first model, if all of them passed it on; else of the one that failed.
    """
    if not choices:
        raise nobody(task)
    first: PartnerUnavailable | RateLimited | SpendingPaused | None = None
    for choice in choices:
        try:
            return choice, ask(choice)
        except UnreadableAnswer:
            raise
        except (PartnerUnavailable, RateLimited, SpendingPaused) as error:
            first = first or error
            log.warning("a model passes a question on", extra={"task": task, "by": str(choice), "error": error.public})
    assert first is not None  # noqa: S101 - there was a choice, and each returned or set it
    raise first
