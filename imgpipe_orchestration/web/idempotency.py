"""Idempotency-Key on routes that answer with a model and change nothing but the database."""

import hashlib
from collections.abc import Callable
from typing import Annotated, TypeVar

from fastapi import Header
from pydantic import BaseModel
from sqlalchemy import Connection, Engine

from imgpipe_orchestration.storage.kept_answers import KeyedRequest
from imgpipe_orchestration.storage.rows import transaction

IdempotencyKey = Annotated[
    str | None,
    Header(
        min_length=1,
        max_length=255,
        description="Names the request: the same one again within a day gets the same answer and changes nothing.",
    ),
]

Answer = TypeVar("Answer", bound=BaseModel)


def once(
    engine: Engine, route: str, key: str | None, asked: str, kind: type[Answer], change: Callable[[Connection], Answer]
) -> Answer:
    """What `change` answers, in one transaction; with a `key`, what it answered when it was first `asked` with that.

    Args:
        asked: what tells this request from others at the route.

    Raises:
        BadInput: the key was used for another request.
        BackendUnavailable: the database is away; nothing was changed.
    """
    if key is None:
        with transaction(engine) as connection:
            return change(connection)
    keyed = KeyedRequest(engine, route, key, hashlib.sha256(asked.encode()).hexdigest())
    return kind.model_validate(keyed.once(lambda connection: change(connection).model_dump(mode="json")))
