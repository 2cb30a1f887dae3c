"""Idempotency-Key: a repeated request with the same key gets the first one's answer, and changes nothing."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Engine, text

from imgpipe_orchestration.errors import BadInput
from imgpipe_orchestration.services import Services
from imgpipe_orchestration.storage.retention import in_batches, old_rows
from imgpipe_orchestration.storage.rows import transaction

DAYS = 1
"""How long answers are kept. Clients repeat a request within minutes; Stripe keeps answers for a day, too."""


class AnsweredMeanwhile(Exception):
    """Another request under the same key was committed first."""


@dataclass(frozen=True, slots=True)
class KeyedRequest:
    """A request with a key. Different uploaders may use the same key."""

    services: Services
    uploader: str
    key: str
    request_sha256: str

    def given_before(self) -> dict[str, Any] | None:
        """The answer kept under the key, or None.

        Raises:
            BadInput: the key was used for another request.
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
        """Keep the answer, in the transaction that writes the upload's rows.

        Raises:
            AnsweredMeanwhile: another request with this key was committed first. (While another transaction is writing
                the same key, the insert waits for its end.)
        """
        values = {"request": self.request_sha256, "answer": json.dumps(answer)}
        if not connection.execute(_KEEP, {"uploader": self.uploader, "key": self.key, **values}).rowcount:
            raise AnsweredMeanwhile


def forget_answers(engine: Engine) -> int:
    """Remove answers that are older than DAYS; returns how many. Their keys may be used again."""
    return in_batches(engine, old_rows("listing_answers", key="uploader, idempotency_key", ended="created_at"), DAYS)


_ANSWER = text("""
    select request_sha256, answer from listing_answers where uploader = :uploader and idempotency_key = :key
""")

_KEEP = text("""
    insert into listing_answers (uploader, idempotency_key, request_sha256, answer)
    values (:uploader, :key, :request, cast(:answer as json)) on conflict do nothing
""")
