"""Answers kept under an Idempotency-Key: a repeated request gets the first answer and changes nothing."""

import hashlib
import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

from fastapi import Header
from pydantic import BaseModel
from sqlalchemy import Connection, Engine, text

from imgpipe_orchestration.errors import BadInput
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


class _AnsweredMeanwhile(Exception):
    """Another request under the same key was committed first."""


@dataclass(frozen=True, slots=True)
class KeyedRequest:
    """A request with a key, or without one (None). Different callers may use the same key, and so may one caller at
    different routes."""

    engine: Engine
    route: str
    key: str | None
    request_sha256: str
    caller: str = ""

    def given_before(self) -> dict[str, Any] | None:
        """The answer kept under the key, or None.

        Raises:
            BadInput: the key was used for another request.
        """
        if self.key is None:
            return None
        with transaction(self.engine) as connection:
            row = connection.execute(_ANSWER, self._named()).one_or_none()
        if row is None:
            return None
        if row.request_sha256 != self.request_sha256:
            told = "This Idempotency-Key was used for another request; take a new one."
            raise BadInput(told, field="Idempotency-Key")
        answer: dict[str, Any] = row.answer
        return answer

    def once(self, change: Callable[[Connection], dict[str, Any]]) -> dict[str, Any]:
        """The answer that was given before, or that of `change`, which is committed together with its answer.

        Raises:
            BadInput: the key was used for another request.
            BackendUnavailable: the database is away; nothing was changed.
        """
        while (given := self.given_before()) is None:
            with suppress(_AnsweredMeanwhile), transaction(self.engine) as connection:
                answer = change(connection)
                if self.key is not None:
                    values = {**self._named(), "request": self.request_sha256, "answer": json.dumps(answer)}
                    # While another transaction is writing the same key, this waits for its end.
                    if not connection.execute(_KEEP, values).rowcount:
                        raise _AnsweredMeanwhile  # which takes back what `change` did
                return answer
        return given

    def _named(self) -> dict[str, str | None]:
        return {"route": self.route, "caller": self.caller, "key": self.key}


def once(
    engine: Engine, route: str, key: str | None, asked: str, kind: type[Answer], change: Callable[[Connection], Answer]
) -> Answer:
    """`KeyedRequest.once` for routes that answer with a model and change nothing but the database.

    Args:
        asked: what tells this request from others at the route.
    """
    keyed = KeyedRequest(engine, route, key, hashlib.sha256(asked.encode()).hexdigest())
    return kind.model_validate(keyed.once(lambda connection: change(connection).model_dump(mode="json")))


_ANSWER = text("""
    select request_sha256, answer from kept_answers
    where route = :route and caller = :caller and idempotency_key = :key
""")

_KEEP = text("""
    insert into kept_answers (route, caller, idempotency_key, request_sha256, answer)
    values (:route, :caller, :key, :request, cast(:answer as json)) on conflict do nothing
""")
