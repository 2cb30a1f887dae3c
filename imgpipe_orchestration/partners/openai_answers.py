"""What the OpenAI SDK gives: its errors as ours, and its objects, which it builds from any JSON, without validation."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from imgpipe_orchestration.errors import (
    ImgpipeError,
    PartnerRefused,
    PartnerUnavailable,
    RateLimited,
    SpendingPaused,
    UnreadableAnswer,
)
from imgpipe_orchestration.partners.links import redirected
from imgpipe_orchestration.partners.reply import plain, server_error
from imgpipe_orchestration.partners.retry import asked_wait
from imgpipe_orchestration.partners.usage import Usage

Answer = TypeVar("Answer")

OPENAI = "OpenAI"
"""The name of a server that is not in MODELS_FILE."""
_LONGEST_NAME = 200
"""Most characters of a model's name; a longer one is ignored."""

# Codes of a 429 (and of a 403) after which waiting some seconds does not help.
# https://platform.openai.com/docs/guides/error-codes
_OUT_OF_MONEY = {"insufficient_quota", "billing_hard_limit_reached", "billing_not_active"}
_POLICY = {"content_policy_violation", "moderation_blocked", "content_filter", "invalid_prompt"}
_FLAGGED = {"flagged_input", "reasons"}
"""What OpenRouter's 403 carries when it is about the content: https://openrouter.ai/docs/errors"""
_UNKNOWN_MODEL = re.compile("invalid model name passed|is not a valid model id\\b", re.IGNORECASE)
"""How LiteLLM and OpenRouter say it, with a 400 and without a code."""
_WORD = re.compile(r"[\w. -]{1,60}", re.ASCII)


def server_name(provider: str) -> str:
    """What errors call a provider: its name in MODELS_FILE."""
    return OPENAI if provider == "openai" else provider


def translating(send: Callable[[], Answer], name: str = OPENAI) -> Answer:
    """Run one SDK call; errors call the server by `name`.

    Raises:
        SpendingPaused: the account's quota or billing limit is used up.
        RateLimited: 429; `retry_after` from Retry-After. (The gate knows the reset headers.)
        PartnerAway, PartnerStumbled: 5xx, no connection.
        PartnerUnavailable: 408, 409, 425, cut off, too slow.
        UnreadableAnswer: not JSON, not the schema asked for.
        PartnerRefused: other 4xx, and content policy.
    """
    import openai  # takes 0.9 s

    try:
        return send()
    except openai.APIStatusError as error:
        raise from_status(error.status_code, error.body, name, error.response.headers) from error
    except openai.APIConnectionError as error:
        if isinstance(error.__cause__, ImgpipeError):  # from `WatchedTransport`, which makes all connections
            raise error.__cause__ from None
        raise PartnerUnavailable(f"{name} could not be reached") from error
    except (openai.OpenAIError, ValueError, AttributeError, TypeError, LookupError) as error:
        # ValueError: broken JSON, or (Pydantic's) an answer that does not follow the schema. The others come from the
        # SDK when it uses objects that it built from unexpected JSON, without validation.
        raise UnreadableAnswer(
            f"{name} answered something we cannot read ({type(error).__name__})", detail=str(error)[:1000]
        ) from error


def from_status(status: int, said: Any, name: str, headers: Mapping[str, str]) -> ImgpipeError:
    """Our error for an HTTP status and the error object that came with it."""
    # OpenAI's answers have strings here; those of other servers with its protocol may have anything. Text Embeddings
    # Inference and LM Studio say what is wrong as a text, FastAPI as `detail`; a proxy's web page says nothing.
    told = "" if str(said).lstrip().startswith("<") else said
    said = {"message": said.get("detail")} | said if isinstance(said, dict) else {"message": told}
    code, kind, message = (str(said.get(field) or "") for field in ("code", "type", "message"))
    wait = asked_wait(headers)
    # In brackets: `invalid_api_key: Incorrect` would be redacted as the value of a key.
    detail = f"{status} ({code or kind}): {message[:500]}"
    if code in _OUT_OF_MONEY or kind in _OUT_OF_MONEY:
        return SpendingPaused(f"{name}'s quota is used up ({code or kind}): check the account's billing", detail=detail)
    if status == 429:
        return RateLimited(f"{name} asks us to slow down (HTTP 429)", detail=detail, retry_after=wait)
    if status >= 500:
        return server_error(name, status, plain(message), detail=detail, retry_after=wait)
    if status in (408, 409, 425):  # the SDK's own retries try 409 again as well
        told = f"{name} failed (HTTP {status})"
        return PartnerUnavailable(told, detail=detail, retry_after=wait, partner_status=status)
    metadata = said.get("metadata")
    flagged = isinstance(metadata, dict) and not _FLAGGED.isdisjoint(metadata)
    if code in _POLICY or kind == "image_generation_user_error" or flagged:
        # Without the status, which would tell the ledger that all requests fail: this is about one request.
        return PartnerRefused(f"{name} refused for its content policy", detail=detail)
    about = status
    if status == 400 and (code == "model_not_found" or _UNKNOWN_MODEL.search(message)):
        about = 404  # as most servers answer
    reason = {
        401: f"does not accept {'OPENAI_API_KEY' if name == OPENAI else 'its key'}",
        402: "requires payment",
        403: "forbids this",
        404: "does not know the model or address",
    }.get(about, redirected(headers.get("location")) if status < 400 else "refused the request")
    return PartnerRefused(f"{name} {reason} (HTTP {status})", detail=detail, partner_status=about)


def from_answer(error: Any, name: str = OPENAI) -> ImgpipeError:
    """Our error for the error object in an HTTP 200 whose `status` is "failed".

    https://platform.openai.com/docs/api-reference/responses/object. Routers with this protocol use the HTTP status of
    the provider behind them as the code.
    """
    code, detail = word_of(getattr(error, "code", None)), str(getattr(error, "message", error))[:500]
    if code in _OUT_OF_MONEY or code == "402":
        return SpendingPaused(f"{name}'s quota is used up ({code}): check the account's billing", detail=detail)
    if code in ("rate_limit_exceeded", "429"):
        return RateLimited(f"{name} asks us to slow down", detail=detail)
    if code in ("server_error", "vector_store_timeout", "408") or re.fullmatch("5[0-9][0-9]", code):
        return PartnerUnavailable(f"{name} failed while answering", detail=detail)
    if not code:
        return UnreadableAnswer(f"{name} answered with an error without a name", detail=detail)
    reason = "for its content policy" if code in _POLICY or "policy" in code else f"the request ({code})"
    return PartnerRefused(f"{name} refused {reason}", detail=detail)


def word_of(value: Any) -> str:
    """A code or reason in an answer, if it is short and plain enough to be shown and stored; else empty."""
    word = str(value or "")
    return word if _WORD.fullmatch(word) else ""


def attribute(thing: Any, name: str) -> Any:
    """An attribute of an SDK object; None where the JSON did not have it."""
    return getattr(thing, name, None)


def expect(response: Any, field: str, kind: type[Answer], name: str) -> Answer:
    """The attribute, with its type checked."""
    value = attribute(response, field)
    if not isinstance(value, kind):
        raise UnreadableAnswer(f"{name} answered in a shape we do not know", detail=str(response)[:500])
    return value


def no_answer(response: Any, name: str) -> ImgpipeError:
    """The error for a response without a whole answer."""
    if (error := attribute(response, "error")) is not None:
        return from_answer(error, name)
    for item in response.output:
        for part in attribute(item, "content") or []:
            if attribute(part, "type") == "refusal":
                return PartnerRefused(f"{name}'s model refused to answer", detail=str(attribute(part, "refusal"))[:500])
    reason = word_of(attribute(attribute(response, "incomplete_details"), "reason"))
    if reason == "content_filter":
        return PartnerRefused(f"{name} filtered its answer (content policy)")
    return UnreadableAnswer(f"{name}'s answer {f'was cut off ({reason})' if reason else 'is incomplete or empty'}")


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
