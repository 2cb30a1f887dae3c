"""A question in words as a vector, bought once for whoever asks it again."""

from __future__ import annotations

from imgpipe_orchestration.errors import ImgpipeError
from imgpipe_orchestration.logs import logger
from imgpipe_orchestration.services import Services
from imgpipe_orchestration.storage.ledger import Buyer, PaidCall, Purchase

log = logger(__name__)

DIMENSIONS = 1536
"""Of the column `embedding`."""


def vector_of(backends: Services, question: str) -> tuple[list[float] | None, str]:
    """The question's vector, or None and why the search goes by words alone."""
    client = backends.openai
    if client is None:
        return None, "No OpenAI key is set, so the search goes by words only."
    model = backends.settings.openai_embedding_model

    def purchase() -> Purchase:
        answer = client.embed(question, model=model, dimensions=DIMENSIONS)
        return Purchase(answer.usage, answer.vector)

    call = PaidCall.of("openai", "embedding", model, inputs=[question], parameters={"dimensions": DIMENSIONS})
    try:
        vector = backends.ledger.buy(call, purchase, buyer=Buyer("media", "search")).value
    except ImgpipeError as error:
        # A search by words is worth more than an error page.
        log.warning("search without meaning", extra={"error": error.public, "detail": error.detail})
        return None, f"The search went by words only: {error.public}"
    return [float(number) for number in vector], ""
