"""Idempotency-Key: a request that is repeated under its key gets the answer it got before, and does nothing."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Engine, text

from imgpipe_orchestration.errors import BadInput
from imgpipe_orchestration.services import Services
from imgpipe_orchestration.storage.retention import in_batches
from imgpipe_orchestration.storage.rows import transaction

DAYS = 1
"""How long answers are kept: as long as clients repeat a request under one key; Stripe keeps a day too."""


class AnsweredMeanwhile(Exception):
    """Another request under the same key was committed first."""


@dataclass(frozen=True, slots=True)
class Once:
    """A request with a key. Keys of one uploader mean nothing to another."""

    services: Services
    uploader: str
    key: str
    request_sha256: str

    def given_before(self) -> dict[str, Any] | None:
        """The answer that stands under the key, or None.

        Raises:
            BadInput: it was given to another request.
        """
        with transaction(self.services.engine) as connection:
            row = connection.execute(_ANSWER, {"uploader": self.uploader, "key": self.key}).one_or_none()
        if row is None:
            return None
        if row.request_sha256 != self.request_sha256:
            raise BadInput("This Idempotency-Key was used for another upload; take a new one.", field="Idempotency-Key")
        answer: dict[str, Any] = row.answer
        return answer

    def keep(self, connection: Connection, answer: dict[str, Any]) -> None:
        """Keep the answer, in the transaction of what it tells of.

        Raises:
            AnsweredMeanwhile: there is one; if another transaction was keeping it, its end was waited for.
        """
        values = {"request": self.request_sha256, "answer": json.dumps(answer)}
        if not connection.execute(_KEEP, {"uploader": self.uploader, "key": self.key, **values}).rowcount:
            raise AnsweredMeanwhile


def forget_answers(engine: Engine) -> int:
    """Remove answers that are DAYS old; returns how many. Their keys may be used anew."""
    return in_batches(engine, _OLD, DAYS)


_ANSWER = text("""
    select request_sha256, answer from listing_answers where uploader = :uploader and idempotency_key = :key
""")

_KEEP = text("""
    insert into listing_answers (uploader, idempotency_key, request_sha256, answer)
    values (:uploader, :key, :request, cast(:answer as json)) on conflict do nothing
""")

_OLD = text("""
    delete from listing_answers where (uploader, idempotency_key) in (
        select uploader, idempotency_key from listing_answers
        where created_at < now() - make_interval(secs => :days * 86400)
        limit :batch for update skip locked)
""")
