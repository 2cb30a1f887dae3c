"""One model's description of one picture, bought once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from imgpipe_orchestration.billing.ledger import Answer, Buyer, PaidCall, Purchase
from imgpipe_orchestration.media import prompts
from imgpipe_orchestration.media.model import BY_KIND
from imgpipe_orchestration.partners.models import Choice
from imgpipe_orchestration.prompts.library import Prompt
from imgpipe_orchestration.services import Services


def described_by(
    services: Services,
    choice: Choice,
    prompt: Prompt,
    preview: bytes,
    kind: str,
    owner: Mapping[str, Any],
    buyer: Buyer,
) -> Answer:
    """The model's answer, whose value has `answer` (see `prompts.schema_of`) and `raw`.

    Args:
        preview: a JPEG.
        owner: of a site's image, see `prompts.question`.

    Raises:
        ImgpipeError: as `Ledger.buy` and `OpenAIClient.answer`.
    """
    from imgpipe_orchestration.partners.openai import json_schema

    question, instructions = prompts.question(prompt, kind, owner), prompt.instructions()
    schema = prompt.shaped(prompts.schema_of(BY_KIND[kind].data_type))

    def purchase() -> Purchase:
        answer = services.openai(choice.provider).answer(
            question, schema, model=choice.model, image=preview, detail="low", instructions=instructions
        )
        return Purchase(answer.usage, {"answer": answer.answer.model_dump(), "raw": answer.raw})

    call = PaidCall.of(
        choice.provider,
        "vision",
        choice.model,
        inputs=[preview, question],
        parameters={"schema": json_schema(schema), "instructions": instructions, "detail": "low"},
    )
    return services.ledger.buy(call, purchase, buyer=buyer)
