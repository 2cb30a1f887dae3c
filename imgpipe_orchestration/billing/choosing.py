"""Asking the models of a task in their order, until one answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from imgpipe_orchestration.errors import PartnerUnavailable, RateLimited, SpendingPaused, UnreadableAnswer
from imgpipe_orchestration.partners.models import Choice
from imgpipe_orchestration.telemetry.logs import logger

log = logger(__name__)

Answered = TypeVar("Answered")


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
