"""What the SDK's objects hold, which it builds from any JSON, without validation."""

from __future__ import annotations

from typing import Any, TypeVar

from imgpipe_orchestration.errors import ImgpipeError, PartnerRefused, UnreadableAnswer
from imgpipe_orchestration.partners.openai_errors import from_answer, word_of
from imgpipe_orchestration.partners.usage import Usage

Result = TypeVar("Result")

_LONGEST_NAME = 200
"""Most characters of a model's name; a longer one is ignored."""


def attribute(thing: Any, name: str) -> Any:
    """An attribute of an SDK object; None where the JSON did not have it."""
    return getattr(thing, name, None)


def expect(response: Any, field: str, kind: type[Result], name: str) -> Result:
    """The attribute, with its type checked."""
    value = attribute(response, field)
    if not isinstance(value, kind):
        raise UnreadableAnswer(f"{name} answered in a shape we do not know", detail=str(response)[:500])
    return value


def no_answer(response: Any, name: str) -> ImgpipeError:
    """The error for a response without a structured answer."""
    if (error := attribute(response, "error")) is not None:
        return from_answer(error, name)
    for item in response.output:
        for part in attribute(item, "content") or []:
            if attribute(part, "type") == "refusal":
                return PartnerRefused(f"{name}'s model refused to answer", detail=str(attribute(part, "refusal"))[:500])
    reason = word_of(attribute(attribute(response, "incomplete_details"), "reason"))
    if reason == "content_filter":
        return PartnerRefused(f"{name} filtered its answer (content policy)")
    return UnreadableAnswer(f"{name}'s answer is incomplete ({reason or 'no text in it'})")


def usage_of(response: Any, model: str) -> Usage:
    """Token counts of any of the APIs; 0 for missing or invalid ones."""
    usage = attribute(response, "usage")
    details = attribute(usage, "input_tokens_details") or attribute(usage, "prompt_tokens_details")
    named = attribute(response, "model")
    return Usage(
        # The name is stored in rows and in the metadata of objects, whose size is limited.
        model=named if isinstance(named, str) and 0 < len(named) <= _LONGEST_NAME and named.isprintable() else model,
        input_tokens=_count(attribute(usage, "input_tokens") or attribute(usage, "prompt_tokens")),
        output_tokens=_count(attribute(usage, "output_tokens") or attribute(usage, "completion_tokens")),
        input_image_tokens=_count(attribute(details, "image_tokens")),
        cached_tokens=_count(attribute(details, "cached_tokens")),
    )


def _count(value: Any) -> int:
    return value if isinstance(value, int) and 0 <= value < 2**40 else 0
