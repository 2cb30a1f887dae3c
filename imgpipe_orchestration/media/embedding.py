"""Embeddings of texts for the search: of questions and of what images show. Each is bought only once.

`rebuild` makes vectors of another model or length, while the search goes on with those there are: a second column
beside the first is filled, image by image. A trigger empties it where the first changes meanwhile. When nothing lacks
its vector and the index is built, the second takes the place of the first in one transaction. Whatever stops it, the
next call goes on where it stopped, and the ledger buys no vector twice.
"""

import math
from array import array
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import Connection, Row, text

from imgpipe_orchestration.billing.batches import Question
from imgpipe_orchestration.billing.calls import Answer, Buyer, PaidCall, Purchase, first_answer
from imgpipe_orchestration.errors import (
    BadInput,
    Conflict,
    ImgpipeError,
    LeaseLost,
    PartnerRefused,
    PartnerStumbled,
    UnreadableAnswer,
)
from imgpipe_orchestration.partners.models import Choice
from imgpipe_orchestration.partners.usage import Priced, charged
from imgpipe_orchestration.storage.rows import autocommit, transaction
from imgpipe_orchestration.telemetry.logs import logger
from imgpipe_orchestration.wiring.services import Services

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

    def read(call: PaidCall, answer: dict[str, Any]) -> Purchase:
        vector = services.openai(call.provider).batched_embedding(answer, call.model)
        return _fitting(vector, call.model, dimensions)

    if services.models.takes_batches(choice.provider):
        services.half_price.fetch(item, "embeddings", lambda: [question], read)


def _call(choice: Choice, words: str, dimensions: int) -> PaidCall:
    parameters = {"dimensions": dimensions}
    return PaidCall.of(choice.provider, "embedding", choice.model, inputs=[words], parameters=parameters)


def _fitting(answer: Priced[list[float]], model: str, dimensions: int) -> Purchase:
    bad = [number for number in answer.value if not math.isfinite(array("f", [number])[0])]
    if bad or len(answer.value) != dimensions:
        told = f"{bad[0]:g}, which cannot be stored" if bad else f"{len(answer.value)} numbers instead of {dimensions}"
        with charged(answer.usage):
            raise UnreadableAnswer(f"{model} answered with {told}")
    return Purchase(answer.usage, answer.value)


def vector_of(services: Services, question: str) -> tuple[list[float] | None, str]:
    """The question's vector and an empty text; or None and the reason why the search uses words only."""
    with transaction(services.engine) as connection:
        space = space_of(connection)
    choices, buyer = space.choices(services), Buyer("media", "search")
    if not choices:
        return None, "No model makes embeddings, so the search goes by words only."
    try:
        _, answer = first_answer(
            choices, lambda one: embed(services, one, question, space.dimensions, buyer), task="embed"
        )
    except ImgpipeError as error:
        # Searching by words is better than an error page.
        log.warning("search without meaning", extra={"error": error.public, "detail": error.detail})
        return None, f"The search went by words only: {error.public}"
    return [float(number) for number in answer.value], ""


# --- making all of them anew -----------------------------------------------------------------------------------------


_LOCK = 0x3B3DD1
"""Advisory lock of the one rebuild at a time."""
_BATCH = 100
_THREADS = 8
_INDEX = "media_ai_analysis_meaning"


def rebuild(
    services: Services, *, told: Callable[[int, int], None] = lambda done, of: None
) -> tuple[int, dict[int, str]]:
    """Give every image that has a vector one of the task `embed`. Returns how many were made, and the images, with the
    reasons, that were refused theirs and have none now; a backfill asks for it again.

    Args:
        told: is called after each batch with how many have theirs, and of how many.

    Raises:
        BadInput: the task is off.
        Conflict: another rebuild is at work.
        ImgpipeError: as `Ledger.buy`, or the model refuses too many; call again to go on.
    """
    choices = services.models.choices("embed")
    if not choices:
        raise BadInput("No model makes embeddings: MODELS_FILE turns the task embed off, or no key is set.")
    target = Space(str(choices[0]), services.models.task("embed").dimensions)
    with autocommit(services.engine) as held:
        if not held.scalar(text("select pg_try_advisory_lock(:key)"), {"key": _LOCK}):
            raise Conflict("Another rebuild of the embeddings is at work.")
        try:
            if not _begin(services, target):
                return 0, {}
            made, refused = 0, dict[int, str]()
            while True:
                made += _fill(services, target, refused, told)
                _index(services)
                if _switch(services, target, refused):
                    return made, refused
        finally:
            held.execute(text("select pg_advisory_unlock(:key)"), {"key": _LOCK})


def _index(services: Services) -> None:
    with autocommit(services.engine) as connection:
        # One that was interrupted is there, but of no use.
        connection.execute(text(f"drop index if exists {_INDEX}_next"))
        connection.execute(text("set statement_timeout = 0"))  # of many images it takes longer than a minute
        try:
            connection.execute(
                text(f"""create index concurrently {_INDEX}_next
                    on media_ai_analysis using hnsw (embedding_next vector_cosine_ops)""")
            )
        finally:
            connection.execute(text("reset statement_timeout"))


def _begin(services: Services, target: Space) -> bool:
    """Make the second column, or take up the one that there is; False if the first is of this space already."""
    with transaction(services.engine) as connection:
        connection.execute(text("lock table media_ai_analysis in access exclusive mode"))
        row = connection.execute(text("select * from embedding_space")).one()
        now = Space(row.model, row.dimensions)
        if now.made_by(services.models.choices("embed")) and now.dimensions == target.dimensions:
            _forget_next(connection)
            return False
        if (row.next_model, row.next_dimensions) != (target.model, target.dimensions):
            _forget_next(connection)
            connection.execute(
                text(f"alter table media_ai_analysis add column embedding_next vector({target.dimensions})")
            )
            connection.execute(
                text("""create trigger outdate_next_embedding before update on media_ai_analysis
                    for each row execute function outdate_next_embedding()""")
            )
            query = text("update embedding_space set next_model = :model, next_dimensions = :dimensions")
            connection.execute(query, asdict(target))
    return True


def _forget_next(connection: Connection) -> None:
    connection.execute(text("drop trigger if exists outdate_next_embedding on media_ai_analysis"))
    connection.execute(text("alter table media_ai_analysis drop column if exists embedding_next"))
    connection.execute(text("update embedding_space set next_model = null, next_dimensions = null"))


_ALIVE = "media_ai_analysis a join live_media f on f.id = a.media_id"  # for what is in the trash nothing is bought
_COUNT = f"select count(embedding_next), count(embedding) from {_ALIVE}"
_LACKING = f"""
    select a.media_id, f.user_id, a.embedding::text as before, a.alt_text, a.subject_matter, a.style_classification,
        a.medium_detected, a.mood_keywords, a.labels, a.detected_objects
    from {_ALIVE} where a.embedding is not null and a.embedding_next is null
    and a.media_id <> all(cast(:refused as bigint[])) order by a.media_id limit {_BATCH}
"""
_STORE = """
    update media_ai_analysis set embedding_next = cast(:vector as vector)
    where media_id = :id and embedding = cast(:before as vector)
"""
"""Not where the analysis changed meanwhile: its words are others now, and it is found lacking again."""
_FAILED = text("""
    update media_ai_analysis set providers = providers || jsonb_build_object('openai_embedding', cast(:outcome as text))
    where media_id = :id and embedding is null
""")


def _fill(services: Services, target: Space, refused: dict[int, str], told: Callable[[int, int], None]) -> int:
    made = 0
    with ThreadPoolExecutor(_THREADS, thread_name_prefix="embeddings") as pool:
        while True:
            with transaction(services.engine) as connection:
                rows = connection.execute(text(_LACKING), {"refused": list(refused)}).all()
                done, of = connection.execute(text(_COUNT)).one()
            told(done, of)
            if not rows:
                return made
            errors: list[ImgpipeError] = []
            for vector, row in zip(pool.map(lambda one: _vector(services, target, one), rows), rows, strict=True):
                if isinstance(vector, ImgpipeError):
                    errors.append(vector)
                    refused[row.media_id] = vector.public
                elif vector is not None:
                    with transaction(services.engine) as connection:
                        values = {"id": row.media_id, "before": row.before, "vector": vector}
                        made += connection.execute(text(_STORE), values).rowcount
            # Then it is the model and not the images. The last ones, fewer than a batch, may be all that are refused.
            fine, before = (len(rows) // 2, done // 10) if len(rows) == _BATCH else (len(rows) - 1, done)
            if len(errors) > fine and len(refused) > before:
                raise errors[0]


def _vector(services: Services, target: Space, row: Row[Any]) -> str | ImgpipeError | None:
    """An image's vector; why it gets none, if that concerns no other image; None if it was deleted meanwhile."""
    words, buyer = words_of(row._asdict()), Buyer("media", f"media/{row.media_id}", tenant=str(row.user_id))
    choices = services.models.choices("embed")
    try:
        _, answer = first_answer(
            choices, lambda one: embed(services, one, words, target.dimensions, buyer), task="embed"
        )
    except LeaseLost:
        return None
    except (PartnerRefused, PartnerStumbled, UnreadableAnswer) as error:
        return error
    return str(answer.value)


def _switch(services: Services, target: Space, refused: Mapping[int, str]) -> bool:
    """Put the second column in the place of the first, unless an image came meanwhile that lacks its vector."""
    with transaction(services.engine) as connection:
        connection.execute(text("lock table media_ai_analysis in access exclusive mode"))
        if connection.scalar(text(f"select exists ({_LACKING})"), {"refused": list(refused)}):
            return False
        connection.execute(text("alter table media_ai_analysis drop column embedding"))
        connection.execute(text("alter table media_ai_analysis rename column embedding_next to embedding"))
        connection.execute(text(f"alter index {_INDEX}_next rename to {_INDEX}"))
        query = text("update embedding_space set model = :model, dimensions = :dimensions")
        connection.execute(query, asdict(target))
        _forget_next(connection)
        if refused:
            failed = [{"id": media_id, "outcome": f"failed: {why}"} for media_id, why in refused.items()]
            connection.execute(_FAILED, failed)
        return True
