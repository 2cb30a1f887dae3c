"""ai_visual_analysis: our own measurements, the answers of two vision APIs, and an embedding for the search.

If a provider is absent or fails, the image only lacks that provider's fields. `providers` records which one and why,
and the healing queue tries it again later. Paid answers come from the ledger if they were bought before.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from imgpipe_orchestration.billing.calls import Answer, Buyer, PaidCall, Purchase, first_answer
from imgpipe_orchestration.errors import BackendUnavailable, ImgpipeError, Permanent, Retryable, UnreadableAnswer
from imgpipe_orchestration.media import store
from imgpipe_orchestration.media.describing import Description, descriptions, versions
from imgpipe_orchestration.media.embedding import embed, fetch_at_half_price, space_of, words_of
from imgpipe_orchestration.media.model import DataType
from imgpipe_orchestration.media.steps.retrieve import mendable, needed
from imgpipe_orchestration.media.store import MediaFile
from imgpipe_orchestration.partners.models import Choice
from imgpipe_orchestration.storage.rows import transaction
from imgpipe_orchestration.telemetry.logs import logger
from imgpipe_orchestration.wiring.services import Services

if TYPE_CHECKING:
    from imgpipe_orchestration.imaging.measuring import Look

log = logger(__name__)

ABSENT = "absent"
OK = "ok"
_LONGEST = 10_000
"""Characters that are kept of a text, and a tenth of that within a list, or a report could be refused for its size."""
_MOST = 50
"""Most entries of a list."""


@dataclass
class Analysis:
    """What an analysis found (columns of `media_ai_analysis`) and which providers failed, with their errors."""

    values: dict[str, Any]
    providers: dict[str, str] = field(default_factory=dict)
    errors: dict[str, ImgpipeError] = field(default_factory=dict)
    answered_by: dict[str, str] = field(default_factory=dict)
    """The model that answered each task, as in MODELS_FILE."""
    bought: int = 0
    reused: int = 0

    def take(self, values: dict[str, Any]) -> None:
        """Add values of a provider, no longer than they are kept."""
        self.values |= {name: value if name in _AS_IT_CAME else _bounded(value) for name, value in values.items()}

    def figures(self) -> dict[str, float]:
        """For the run's totals."""
        failures = {f"failed_{provider}": 1 for provider in self.errors}
        return {"answers_bought": self.bought, "answers_reused": self.reused, **failures}

    def error(self) -> ImgpipeError | None:
        """The error that says whether another try could help: a Retryable one, if there is any."""
        return min(self.errors.values(), key=lambda error: isinstance(error, Permanent), default=None)


def analyse(services: Services, media: MediaFile, *, urgent: bool = True) -> Analysis:
    """Measure the original and ask the providers; writes nothing but the ledger.

    Args:
        urgent: false: OpenAI's answers may take a day, and cost half.

    Raises:
        InBatch: it is not urgent, and an answer is not there yet.
        BadImage, TooLarge: the original cannot be decoded.
        BackendUnavailable: our own database or object store is away; else as `needed`.
    """
    from imgpipe_orchestration.imaging.measuring import look

    buyer = Buyer("media", f"media/{media.id}", tenant=str(media.user_id), patient=not urgent)
    describing, embedding = (f"{store.UNHURRIED_ANALYSIS.name}/{media.id}/{task}" for task in ("describe", "embed"))
    if not urgent:  # before anything is decoded
        services.half_price.wait_for(describing)
        services.half_price.wait_for(embedding)
    seen = services.workshop.call(look, needed(services, media))
    found = Analysis(dict(seen.values))
    if media.data_type is DataType.LOGO:
        found.values["brand_colors"] = _brand_colours(seen.values["dominant_colors"])
    found.values["version"] = versions(services.prompts["describe"]).get(media.kind)
    describe = descriptions(services, media, seen.preview, buyer, services.models.choices("describe"))
    if not urgent and describe:
        describe[0].fetch_at_half_price(describing)
    _ask(found, "google_vision", lambda: _google(services, media, seen, buyer, found))
    _ask(found, "openai_vision", lambda: _openai(media, describe, found))
    with transaction(services.engine) as connection:
        space = space_of(connection)
    choices, words = space.choices(services), words_of(found.values)
    if not urgent and choices and words:
        fetch_at_half_price(services, choices[0], words, space.dimensions, buyer, embedding)

    def embedded() -> bool:  # also if nothing was to be seen, of which there is nothing to make
        if choices and words:
            answer = _first(found, "embed", choices, lambda one: embed(services, one, words, space.dimensions, buyer))
            found.values["embedding"] = str(answer.value)
        return bool(choices and (words or not found.errors))

    _ask(found, "openai_embedding", embedded)
    found.values["providers"] = _bounded(found.providers)
    found.values["answered_by"] = found.answered_by
    return found


_AS_IT_CAME = {"raw_google_response", "raw_gpt4_response", "boxes"}
"""Values that are not part of a report and keep their length."""


def _bounded(value: Any, longest: int = _LONGEST) -> Any:
    if isinstance(value, str):
        return value[:longest]
    if isinstance(value, list):
        return [_bounded(item, _LONGEST // 10) for item in value[:_MOST]]
    if isinstance(value, dict):
        return {name: _bounded(item, _LONGEST // 10) for name, item in value.items()}
    return value


def _ask(found: Analysis, provider: str, ask: Callable[[], bool]) -> None:
    """Run one provider's part; `ask` returns False if the provider is not configured."""
    try:
        found.providers[provider] = OK if ask() else ABSENT
    except BackendUnavailable:
        raise
    except (Retryable, Permanent) as error:
        log.warning("provider failed", extra={"provider": provider, "error": error.public})
        found.providers[provider] = f"failed: {error.public}"
        found.errors[provider] = mendable(error)
    except ImgpipeError:
        raise
    except Exception as error:  # an answer of an unexpected shape, which is not the image's fault
        log.error("provider's answer not understood", extra={"provider": provider}, exc_info=error)
        unreadable = UnreadableAnswer(f"{provider} answered in a way we do not understand ({type(error).__name__})")
        found.providers[provider] = f"failed: {unreadable.public}"
        found.errors[provider] = unreadable


def _brand_colours(colours: list[dict[str, Any]]) -> list[str]:
    """A logo's colours without its background: that is the largest colour, if it is nearly white, nearly black or more
    than half of the picture."""
    largest = colours[0] if colours else None
    if largest and len(colours) > 1:
        channels = [int(largest["hex"][i : i + 2], 16) for i in (1, 3, 5)]
        if largest["share"] > 0.5 or min(channels) > 235 or max(channels) < 20:
            colours = colours[1:]
    return [colour["hex"] for colour in colours[:5]]


def _google(services: Services, media: MediaFile, seen: Look, buyer: Buyer, found: Analysis) -> bool:
    choices = services.models.choices("labels")
    if not choices:
        return False
    from imgpipe_orchestration.partners.google_vision import MODEL, columns

    def ask(choice: Choice, features: Sequence[str]) -> Answer:
        def purchase() -> Purchase:
            client = services.google_vision(choice.provider)
            answer = client.annotate(seen.preview, size=seen.preview_size, features=features)
            return Purchase(answer.usage, answer.value)

        call = PaidCall.of(
            choice.provider, "annotate", MODEL, inputs=[seen.preview], parameters={"features": list(features)}
        )
        return services.ledger.buy(call, purchase, buyer=buyer)

    def bought(features: Sequence[str]) -> dict[str, Any]:
        answer: dict[str, Any] = _first(found, "labels", choices, lambda choice: ask(choice, features)).value
        return answer

    value = bought(services.models.features(media.kind))
    found.take(columns(value["raw"], seen.preview_size))
    while missing := value.get("missing"):  # not in answers of earlier versions; each answer brings something
        more = bought(missing)
        value = {"raw": {**value["raw"], **more["raw"]}, "missing": more["missing"]}
        found.take(columns(value["raw"], seen.preview_size))
    return True


def _openai(media: MediaFile, describe: Sequence[Description], found: Analysis) -> bool:
    if not describe:
        return False
    by_choice = {one.choice: one for one in describe}
    value = _first(found, "describe", list(by_choice), lambda choice: by_choice[choice].bought()).value
    answer = value["answer"]
    confidence = answer["confidence"]  # null where the model wrote NaN, which the journal cannot store
    values = {
        "style_classification": answer["style"][:255],
        "medium_detected": answer["medium"][:255],
        "subject_matter": answer["subject"],
        "quality_score": min(100, max(0, int(answer["quality_score"]))),
        "mood_keywords": answer["mood_keywords"],
        "confidence_score": None if confidence is None else min(1.0, max(0.0, confidence)),
        "alt_text": answer.get("seo_alt_text") or answer["alt_text"],
        "raw_gpt4_response": value["raw"],
    }
    if media.data_type is DataType.LOGO and answer["brand_name"]:
        values["brand_name"] = answer["brand_name"]
    if media.data_type is DataType.SITES:
        names = ("content_kind", "owner_fit", "owner_fit_reason", "seo_alt_text")
        values["site_context"] = {name: answer[name] for name in names}
    found.take(values)
    return True


def _first(found: Analysis, task: str, choices: Sequence[Choice], ask: Callable[[Choice], Answer]) -> Answer:
    """The first model's answer, counted, with who gave it."""
    choice, answer = first_answer(choices, ask, task=task)
    found.answered_by[task] = str(choice)
    found.bought += answer.bought
    found.reused += not answer.bought
    return answer
