"""`imgpipe embeddings rebuild`: vectors of another model or length, while the search goes on with those there are.

A second column beside the first is filled, image by image. A trigger empties it where the first changes meanwhile. When
nothing lacks its vector and the index is built, the second takes the place of the first in one transaction. Whatever
stops it, the next call goes on where it stopped, and the ledger buys no vector twice.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from sqlalchemy import Connection, Row, text

from imgpipe_orchestration.billing.calls import Answer, Buyer, first_answer
from imgpipe_orchestration.errors import BadInput, Conflict
from imgpipe_orchestration.media.embedding import Space, embed, words_of
from imgpipe_orchestration.partners.models import Choice
from imgpipe_orchestration.services import Services
from imgpipe_orchestration.storage.rows import autocommit, transaction

_LOCK = 0x3B3DD1
"""Advisory lock of the one rebuild at a time."""
_BATCH = 100
_THREADS = 8
_INDEX = "media_ai_analysis_meaning"


def rebuild(services: Services, *, told: Callable[[int, int], None] = lambda done, of: None) -> int:
    """Give every image that has a vector one of the task `embed`; returns how many were made.

    Args:
        told: is called after each batch with how many have theirs, and of how many.

    Raises:
        BadInput: the task is off.
        Conflict: another rebuild is at work.
        ImgpipeError: as `Ledger.buy`; call again to go on.
    """
    choices = services.models.choices("embed")
    if not choices:
        raise BadInput("No model makes embeddings: MODELS_FILE turns the task embed off, or no key is set.")
    target = Space(str(choices[0]), services.models.task("embed").dimensions)
    with autocommit(services.engine) as held:
        if not held.scalar(text("select pg_try_advisory_lock(:key)"), {"key": _LOCK}):
            raise Conflict("Another rebuild of the embeddings is at work.")
        try:
            return _rebuild(services, target, told)
        finally:
            held.execute(text("select pg_advisory_unlock(:key)"), {"key": _LOCK})


def _rebuild(services: Services, target: Space, told: Callable[[int, int], None]) -> int:
    if not _begin(services, target):
        return 0
    made = 0
    while True:
        made += _fill(services, target, told)
        with autocommit(services.engine) as connection:
            # One that was interrupted is there, but of no use.
            connection.execute(text(f"drop index if exists {_INDEX}_next"))
            connection.execute(
                text(f"""create index concurrently {_INDEX}_next
                    on media_ai_analysis using hnsw (embedding_next vector_cosine_ops)""")
            )
        if _switch(services, target):
            return made


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
            connection.execute(query, {"model": target.model, "dimensions": target.dimensions})
    return True


def _forget_next(connection: Connection) -> None:
    connection.execute(text("drop trigger if exists outdate_next_embedding on media_ai_analysis"))
    connection.execute(text("alter table media_ai_analysis drop column if exists embedding_next"))
    connection.execute(text("update embedding_space set next_model = null, next_dimensions = null"))


_COUNT = "select count(embedding_next), count(embedding) from media_ai_analysis"
_LACKING = f"""
    select a.media_id, f.user_id, a.embedding::text as before, a.alt_text, a.subject_matter, a.style_classification,
        a.medium_detected, a.mood_keywords, a.labels, a.detected_objects
    from media_ai_analysis a join media_files f on f.id = a.media_id
    where a.embedding is not null and a.embedding_next is null order by a.media_id limit {_BATCH}
"""
_STORE = """
    update media_ai_analysis set embedding_next = cast(:vector as vector)
    where media_id = :id and embedding = cast(:before as vector)
"""
"""Not where the analysis changed meanwhile: its words are others now, and it is found lacking again."""


def _fill(services: Services, target: Space, told: Callable[[int, int], None]) -> int:
    made = 0
    with ThreadPoolExecutor(_THREADS, thread_name_prefix="embeddings") as pool:
        while True:
            with transaction(services.engine) as connection:
                rows = connection.execute(text(_LACKING)).all()
                done, of = connection.execute(text(_COUNT)).one()
            told(done, of)
            if not rows:
                return made
            for vector, row in zip(pool.map(lambda one: _vector(services, target, one), rows), rows, strict=True):
                with transaction(services.engine) as connection:
                    values = {"id": row.media_id, "before": row.before, "vector": vector}
                    made += connection.execute(text(_STORE), values).rowcount


def _vector(services: Services, target: Space, row: Row[Any]) -> str:
    words, buyer = words_of(row._asdict()), Buyer("media", f"media/{row.media_id}", tenant=str(row.user_id))

    def ask(choice: Choice) -> Answer:
        return embed(services, choice, words, target.dimensions, buyer)

    return str(first_answer(services.models.choices("embed"), ask, task="embed")[1].value)


def _switch(services: Services, target: Space) -> bool:
    """Put the second column in the place of the first, unless an image came meanwhile that lacks its vector."""
    with transaction(services.engine) as connection:
        connection.execute(text("lock table media_ai_analysis in access exclusive mode"))
        lacking = "select exists (select from media_ai_analysis where embedding is not null and embedding_next is null)"
        if connection.scalar(text(lacking)):
            return False
        connection.execute(text("drop trigger outdate_next_embedding on media_ai_analysis"))
        connection.execute(text("alter table media_ai_analysis drop column embedding"))
        connection.execute(text("alter table media_ai_analysis rename column embedding_next to embedding"))
        connection.execute(text(f"alter index {_INDEX}_next rename to {_INDEX}"))
        query = "update embedding_space set model = :model, dimensions = :dimensions, next_model = null"
        values = {"model": target.model, "dimensions": target.dimensions}
        connection.execute(text(f"{query}, next_dimensions = null"), values)
        return True
