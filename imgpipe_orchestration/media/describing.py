"""One model's description of one picture, bought once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from pydantic import BaseModel

from imgpipe_orchestration.billing.batches import Question
from imgpipe_orchestration.billing.calls import Answer, Buyer, PaidCall, Purchase
from imgpipe_orchestration.media import prompts, store
from imgpipe_orchestration.media.model import BY_KIND, DataType
from imgpipe_orchestration.media.store import MediaFile
from imgpipe_orchestration.partners.models import Choice
from imgpipe_orchestration.partners.openai import Seen, batched_answer, batched_question, json_schema
from imgpipe_orchestration.partners.openai_answers import server_name
from imgpipe_orchestration.prompts.library import Prompt
from imgpipe_orchestration.services import Services
from imgpipe_orchestration.storage.rows import transaction


@dataclass(frozen=True)
class Description:
    """The question about one picture, for one model.

    Args:
        preview: a JPEG.
        owner: of a site's image, see `prompts.question`.
    """

    services: Services
    choice: Choice
    prompt: Prompt
    preview: bytes
    kind: str
    owner: Mapping[str, Any]
    buyer: Buyer

    def bought(self) -> Answer:
        """The model's answer, whose value has `answer` (see `prompts.schema_of`) and `raw`.

        Raises:
            ImgpipeError: as `Ledger.buy` and `OpenAIClient.answer`.
        """

        def purchase() -> Purchase:
            client = self.services.openai(self.choice.provider)
            return _purchase(client.answer(self._asked, self._schema, model=self.choice.model, **self._options))

        return self.services.ledger.buy(self._call, purchase, buyer=self.buyer)

    def fetch_at_half_price(self, item: str) -> None:
        """Have the answer in the ledger when it is bought, if the provider has batches; `item` as of `HalfPrice.fetch`.

        Raises:
            InBatch: it is not there yet.
        """
        body = batched_question(self._asked, self._schema, model=self.choice.model, **self._options)

        def read(answer: dict[str, Any]) -> Purchase:
            return _purchase(batched_answer(answer, self._schema, self.choice.model, server_name(self.choice.provider)))

        if self.services.models.takes_batches(self.choice.provider):
            question = Question(self._call, body, self.buyer)
            self.services.half_price.fetch(item, "responses", lambda: [question], read)

    @property
    def _call(self) -> PaidCall:
        options = self._options
        return PaidCall.of(
            self.choice.provider,
            "vision",
            self.choice.model,
            inputs=[self.preview, self._asked],
            parameters={
                "schema": json_schema(self._schema),
                "instructions": options["instructions"],
                "detail": options["detail"],
            },
        )

    @cached_property
    def _asked(self) -> str:
        return prompts.question(self.prompt, self.kind, self.owner)

    @cached_property
    def _schema(self) -> type[BaseModel]:
        return self.prompt.shaped(prompts.schema_of(BY_KIND[self.kind].data_type))

    @property
    def _options(self) -> dict[str, Any]:
        return {"image": self.preview, "detail": "low", "instructions": self.prompt.instructions()}


def descriptions(
    services: Services, media: MediaFile, preview: bytes, buyer: Buyer, choices: Iterable[Choice]
) -> list[Description]:
    """The question about an image to each of the models."""
    owner: dict[str, Any] = {}
    if media.data_type is DataType.SITES:
        with transaction(services.engine) as connection:
            owner = store.owner_context(connection, media.user_id)
    prompt = services.prompts["describe"]
    return [Description(services, choice, prompt, preview, media.kind, owner, buyer) for choice in choices]


def _purchase(seen: Seen[Any]) -> Purchase:
    return Purchase(seen.usage, {"answer": seen.answer.model_dump(), "raw": seen.raw})
