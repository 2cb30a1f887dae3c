"""One model's description of one picture, bought once: its question, the shape of its answer, and second opinions.

The words of the question are in `prompts/describe.md`.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from pydantic import BaseModel
from sqlalchemy import Connection, Row, text

from imgpipe_orchestration.billing.batches import Question
from imgpipe_orchestration.billing.calls import Answer, Buyer, PaidCall, Purchase
from imgpipe_orchestration.errors import Permanent, Retryable
from imgpipe_orchestration.media import store
from imgpipe_orchestration.media.model import BY_KIND, DataType
from imgpipe_orchestration.media.steps.retrieve import needed
from imgpipe_orchestration.media.store import MediaFile
from imgpipe_orchestration.partners.models import Choice
from imgpipe_orchestration.partners.openai import Query, json_schema
from imgpipe_orchestration.partners.usage import Priced
from imgpipe_orchestration.prompts.library import Prompt
from imgpipe_orchestration.storage.claims import Claim, Item
from imgpipe_orchestration.storage.rows import transaction
from imgpipe_orchestration.telemetry.logs import logger
from imgpipe_orchestration.wiring.services import Services

log = logger(__name__)


class Seen(BaseModel):
    """What every image is asked for."""

    style: str
    medium: str
    subject: str
    quality_score: int
    mood_keywords: list[str]
    alt_text: str
    confidence: float


class SeenLogo(Seen):
    """A logo is also asked for the brand."""

    brand_name: str | None
    trademark_hint: str | None


class SeenSite(Seen):
    """A site's image is also asked what it is good for on the site."""

    content_kind: Literal["banner", "background", "content", "ui_element"]
    owner_fit: int
    owner_fit_reason: str
    seo_alt_text: str


SCHEMAS: dict[DataType, type[Seen]] = {DataType.LOGO: SeenLogo, DataType.SITES: SeenSite}


def schema_of(kind: str) -> type[Seen]:
    """The answer's shape for a kind of image (`Field.kind`)."""
    return SCHEMAS.get(BY_KIND[kind].data_type, Seen)


def versions(prompt: Prompt) -> dict[str, str]:
    """By kind of image, the version of what is asked and answered: what changed is asked again by a backfill."""
    return {kind: prompt.version(schema_of(kind), kind=kind, owner="") for kind in BY_KIND}


@dataclass(frozen=True)
class Description:
    """The question about one picture, for one model.

    Args:
        preview: a JPEG.
        owner: of a site's image, its profile and catalogue.
    """

    services: Services
    choice: Choice
    prompt: Prompt
    preview: bytes
    kind: str
    owner: Mapping[str, Any]
    buyer: Buyer

    def bought(self) -> Answer:
        """The model's answer, whose value has `answer` (see `schema_of`) and `raw`.

        Raises:
            ImgpipeError: as `Ledger.buy` and `OpenAIClient.answer`.
        """

        def purchase() -> Purchase:
            client = self.services.openai(self.choice.provider)
            return _purchase(client.answer(self._query, model=self.choice.model))

        return self.services.ledger.buy(self._call, purchase, buyer=self.buyer)

    def fetch_at_half_price(self, item: str) -> None:
        """Have the answer in the ledger when it is bought, if the provider has batches; `item` as of `HalfPrice.fetch`.

        Raises:
            InBatch: it is not there yet.
        """

        def read(call: PaidCall, answer: dict[str, Any]) -> Purchase:
            client = self.services.openai(call.provider)
            return _purchase(client.batched_answer(answer, self._query.schema, call.model))

        if self.services.models.takes_batches(self.choice.provider):
            question = Question(self._call, self._query.body(self.choice.model), self.buyer)
            self.services.half_price.fetch(item, "responses", lambda: [question], read)

    @property
    def _call(self) -> PaidCall:
        asked = self._query
        parameters = {"instructions": asked.instructions, "detail": asked.detail}
        return PaidCall.of(
            self.choice.provider,
            "vision",
            self.choice.model,
            inputs=[self.preview, asked.prompt],
            parameters={"schema": json_schema(asked.schema), **parameters},
        )

    @cached_property
    def _query(self) -> Query[BaseModel]:
        return Query(
            self.prompt.question(kind=self.kind, owner=json.dumps(self.owner, ensure_ascii=False)[:4000]),
            self.prompt.shaped(schema_of(self.kind)),
            self.preview,
            instructions=self.prompt.instructions(),
        )


def _purchase(seen: Priced[Any]) -> Purchase:
    return Purchase(seen.usage, {"answer": seen.value.model_dump(), "raw": seen.raw})


def descriptions(
    services: Services, media: MediaFile, preview: bytes, buyer: Buyer, choices: Iterable[Choice]
) -> list[Description]:
    """The question about an image to each of the models. About a site's image it has what is known of the owner: the
    profile's texts, and the subjects of the catalogue's images."""
    owner: dict[str, Any] = {}
    if media.data_type is DataType.SITES:
        with transaction(services.engine) as connection:
            profile = connection.execute(_PROFILE, {"id": media.user_id}).mappings().one_or_none()
            owner = {name: value for name, value in (profile or {}).items() if value}
            owner["catalogue"] = list(connection.scalars(_CATALOGUE, {"id": media.user_id}))
    prompt = services.prompts["describe"]
    return [Description(services, choice, prompt, preview, media.kind, owner, buyer) for choice in choices]


_PROFILE = text("select display_name, bio, website, location from user_profiles where user_id = :id")
_CATALOGUE = text("""
    select a.subject_matter from media_ai_analysis a join live_media f on f.id = a.media_id
    where f.user_id = :id and f.data_type = 'product' and a.subject_matter is not null order by f.id desc limit 10
""")


# --- second opinions: other models are asked the same about a share of new images, to compare them. What they say is
# used for nothing. The images are chosen by their bytes, so they are the same after a restart.


def chosen(sha256: str | None, share: float) -> bool:
    """Whether an image is one of a share of all: always the same ones, and those of a smaller share among them."""
    return sha256 is not None and int(sha256[:8], 16) < share * 2**32


def order_second_opinions(services: Services, connection: Connection, media: MediaFile) -> None:
    """Put a new image into the queue if it is one of the share."""
    wanted = services.models.task("describe").canary
    if wanted and chosen(media.sha256, wanted.share):
        services.claims.enqueue(connection, store.CANARY, [Item(media.id, str(media.user_id))])


def ask_others(services: Services, claim: Claim) -> None:
    """Ask the other models about an image.

    Raises:
        Retryable: one may answer later.
    """
    from imgpipe_orchestration.imaging.measuring import look

    with transaction(services.engine) as connection:
        media = store.media_file(connection, claim.item_id)
    buyer = Buyer("media", f"media/{media.id}/canary", tenant=str(media.user_id))
    asked: Sequence[Description] = []
    waits: Retryable | None = None
    try:
        seen = services.workshop.call(look, needed(services, media))
        asked = descriptions(services, media, seen.preview, buyer, services.models.canaries("describe"))
    except Permanent as error:
        log.info("no second opinions", extra={"media_id": media.id, "error": error.public})
    for one in asked:
        try:
            one.bought()
        except Permanent as error:  # the ledger has the reason
            log.info("no second opinion", extra={"media_id": media.id, "error": error.public})
        except Retryable as error:
            waits = waits or error
    if waits is not None:
        raise waits
    with services.claims.fenced(claim) as connection:
        services.claims.finish(connection, store.CANARY, claim)


def second_opinions(connection: Connection, media_id: int) -> Sequence[Row[Any]]:
    """What other models say of an image, by `model`: the `answer` (see `schema_of`), or the `error` for which there is
    none."""
    query = text("""
        select distinct on (u.provider, u.model)
            u.provider || ':' || u.model as model, c.value -> 'answer' as answer, u.error
        from paid_call_uses u left join paid_calls c on c.key = u.key and c.state = 'committed'
        where u.pipeline = 'media' and u.item = :item order by u.provider, u.model, u.id desc
    """)
    return connection.execute(query, {"item": f"media/{media_id}/canary"}).all()
