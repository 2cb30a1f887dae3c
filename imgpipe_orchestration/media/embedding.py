"""Embeddings of texts for the search: of questions and of what images show. Each is bought only once."""

from __future__ import annotations

import math
from array import array

from imgpipe_orchestration.billing.choosing import first_answer
from imgpipe_orchestration.billing.ledger import Answer, Buyer, PaidCall, Purchase
from imgpipe_orchestration.errors import ImgpipeError, UnreadableAnswer
from imgpipe_orchestration.logs import logger
from imgpipe_orchestration.partners.models import Choice
from imgpipe_orchestration.services import Services

log = logger(__name__)

DIMENSIONS = 1536
"""Dimensions of the column `embedding`, whose numbers have 32 bits."""
_LONGEST = 4_000
"""Characters of a text that are embedded: OpenAI refuses more than 8,192 tokens, and no common script takes over two a
character."""


def embed(services: Services, choice: Choice, text: str, buyer: Buyer) -> Answer:
    """The vector of the beginning of a text; only vectors of one model and one length can be compared.

    Raises:
        UnreadableAnswer: a vector that the column cannot hold, as some servers ignore `dimensions`.
        ImgpipeError: as `Ledger.buy` and `OpenAIClient.embed`.
    """
    model, text = choice.model, text[:_LONGEST]

    def purchase() -> Purchase:
        answer = services.openai(choice.provider).embed(text, model=model, dimensions=DIMENSIONS)
        if len(answer.vector) != DIMENSIONS or not all(map(math.isfinite, array("f", answer.vector))):
            unusable = UnreadableAnswer(
                f"{model} answered with {len(answer.vector)} numbers instead of {DIMENSIONS} that can be stored"
            )
            unusable.usage = answer.usage
            raise unusable
        return Purchase(answer.usage, answer.vector)

    call = PaidCall.of(choice.provider, "embedding", model, inputs=[text], parameters={"dimensions": DIMENSIONS})
    return services.ledger.buy(call, purchase, buyer=buyer)


def vector_of(services: Services, question: str) -> tuple[list[float] | None, str]:
    """The question's vector and an empty text; or None and the reason why the search uses words only."""
    choices, buyer = services.models.choices("embed"), Buyer("media", "search")
    if not choices:
        return None, "No model makes embeddings, so the search goes by words only."
    try:
        vector = first_answer(choices, lambda one: embed(services, one, question, buyer), task="embed")[1].value
    except ImgpipeError as error:
        # Searching by words is better than an error page.
        log.warning("search without meaning", extra={"error": error.public, "detail": error.detail})
        return None, f"The search went by words only: {error.public}"
    return [float(number) for number in vector], ""
