"""Embeddings of texts for the search: of questions and of what images show. Each is bought only once."""

from __future__ import annotations

import math
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, text

from imgpipe_orchestration.billing.batches import Question
from imgpipe_orchestration.billing.calls import Answer, Buyer, PaidCall, Purchase, first_answer
from imgpipe_orchestration.errors import ImgpipeError, UnreadableAnswer
from imgpipe_orchestration.partners.models import Choice
from imgpipe_orchestration.partners.openai import Embedded, batched_embedding
from imgpipe_orchestration.partners.openai_answers import server_name
from imgpipe_orchestration.partners.usage import charged
from imgpipe_orchestration.services import Services
from imgpipe_orchestration.storage.rows import transaction
from imgpipe_orchestration.telemetry.logs import logger

log = logger(__name__)

_LONGEST = 4_000
"""Characters of a text that are embedded: OpenAI refuses more than 8,192 tokens, and no common script takes over two a
character."""


@dataclass(frozen=True, slots=True)
class Space:
    """Whose vectors can be compared: the `provider:model` that made them (empty before the first), and their length."""

    model: str
    dimensions: int

    def choices(self, services: Services) -> list[Choice]:
        """Who makes such vectors: the models of the task, or until a rebuild the one that was it before."""
        wanted = services.models.choices("embed")
        if self.made_by(wanted) and services.models.task("embed").dimensions == self.dimensions:
            return wanted
        before = Choice.of(self.model)
        return [before] if wanted and before.provider in services.models.providers else []

    def made_by(self, choices: Sequence[Choice]) -> bool:
        """Whether the vectors are of these models, which are one at several providers."""
        return not self.model or Choice.of(self.model).model in {choice.model for choice in choices}


def words_of(analysis: Mapping[str, Any]) -> str:
    """What is embedded of an analysis, by its columns; empty if nothing was seen."""
    names = ("alt_text", "subject_matter", "style_classification", "medium_detected")
    things = [thing["name"] for name in ("labels", "detected_objects") for thing in analysis.get(name) or []]
    parts = [analysis.get(name) for name in names]
    parts += [", ".join(analysis.get("mood_keywords") or []), ", ".join(dict.fromkeys(things))]
    return "\n".join(part for part in parts if part)


def space_of(connection: Connection) -> Space:
    """The space of the column `embedding`."""
    return Space(*connection.execute(text("select model, dimensions from embedding_space")).one())


def holds(connection: Connection, model: str, vector: str) -> bool:
    """Whether the column takes this vector (as text) of a model, which then is the column's if it is the first. The
    answer is true until the transaction ends."""
    connection.execute(text("lock table media_ai_analysis in row exclusive mode"))  # as a rebuild's end locks it
    query = text("update embedding_space set model = :model where model = '' and dimensions = :dimensions")
    connection.execute(query, {"model": model, "dimensions": vector.count(",") + 1})
    space = space_of(connection)
    return space.made_by([Choice.of(model)]) and vector.count(",") + 1 == space.dimensions


def embed(services: Services, choice: Choice, words: str, dimensions: int, buyer: Buyer) -> Answer:
    """The vector of the beginning of a text.

    Raises:
        UnreadableAnswer: a vector that the column cannot hold, as some servers ignore `dimensions`.
        ImgpipeError: as `Ledger.buy` and `OpenAIClient.embed`.
    """
    words = words[:_LONGEST]

    def purchase() -> Purchase:
        answer = services.openai(choice.provider).embed(words, model=choice.model, dimensions=dimensions)
        return _fitting(answer, choice.model, dimensions)

    return services.ledger.buy(_call(choice, words, dimensions), purchase, buyer=buyer)


def fetch_at_half_price(
    services: Services, choice: Choice, words: str, dimensions: int, buyer: Buyer, item: str
) -> None:
    """Have the vector in the ledger when it is bought by `embed`, if the provider has batches; `item` as of
    `HalfPrice.fetch`.

    Raises:
        InBatch: it is not there yet.
    """
    words = words[:_LONGEST]
    body = {"model": choice.model, "input": words, "dimensions": dimensions, "encoding_format": "float"}
    question = Question(_call(choice, words, dimensions), body, buyer)

    def read(answer: dict[str, Any]) -> Purchase:
        return _fitting(batched_embedding(answer, choice.model, server_name(choice.provider)), choice.model, dimensions)

    if services.models.takes_batches(choice.provider):
        services.half_price.fetch(item, "embeddings", lambda: [question], read)


def _call(choice: Choice, words: str, dimensions: int) -> PaidCall:
    parameters = {"dimensions": dimensions}
    return PaidCall.of(choice.provider, "embedding", choice.model, inputs=[words], parameters=parameters)


def _fitting(answer: Embedded, model: str, dimensions: int) -> Purchase:
    if len(answer.vector) != dimensions or not all(map(math.isfinite, array("f", answer.vector))):
        told = f"{model} answered with {len(answer.vector)} numbers instead of {dimensions} that can be stored"
        with charged(answer.usage):
            raise UnreadableAnswer(told)
    return Purchase(answer.usage, answer.vector)


def vector_of(services: Services, question: str) -> tuple[list[float] | None, str]:
    """The question's vector and an empty text; or None and the reason why the search uses words only."""
    with transaction(services.engine) as connection:
        space = space_of(connection)
    choices, buyer = space.choices(services), Buyer("media", "search")
    if not choices:
        return None, "No model makes embeddings, so the search goes by words only."

    def ask(choice: Choice) -> Answer:
        return embed(services, choice, question, space.dimensions, buyer)

    try:
        vector = first_answer(choices, ask, task="embed")[1].value
    except ImgpipeError as error:
        # Searching by words is better than an error page.
        log.warning("search without meaning", extra={"error": error.public, "detail": error.detail})
        return None, f"The search went by words only: {error.public}"
    return [float(number) for number in vector], ""
