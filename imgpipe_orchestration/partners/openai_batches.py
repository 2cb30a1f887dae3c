"""OpenAI's Batch API: questions sent together, answered within a day at half the price.

https://platform.openai.com/docs/guides/batch: a file with a request a line, a batch over it, and files with the answers
and the errors. A batch carries our own name for it, by which it is found if its id was lost.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from imgpipe_orchestration.errors import ImgpipeError, PartnerRefused, UnreadableAnswer
from imgpipe_orchestration.partners.openai import OpenAIClient
from imgpipe_orchestration.partners.openai_answers import attribute, from_answer, from_status, word_of
from imgpipe_orchestration.telemetry.logs import logger

if TYPE_CHECKING:
    import openai

log = logger(__name__)

MOST_BYTES = 150_000_000
"""Size of the largest file of requests that we send; OpenAI takes 200 MB and 50,000 requests."""
MOST_SECONDS = 26 * 3600.0
"""After this long a sent batch has ended, expired or not; OpenAI gives itself 24 hours."""

_NAMED = "imgpipe"
_KEPT_SECONDS = 3 * 24 * 3600
_ENDED = ("completed", "failed", "expired", "cancelled")
_UNDER_WAY = ("validating", "in_progress", "finalizing", "cancelling")


@dataclass(frozen=True, slots=True)
class SentBatch:
    """A batch as the provider tells of it."""

    id: str
    status: str
    files: tuple[str, ...]
    """Its files of answers and errors that there are, by id."""
    why: str
    """Why it failed, if it did."""

    @property
    def ended(self) -> bool:
        return self.status in _ENDED


class OpenAIBatches:
    """Batches of one client's account. All methods raise as `openai_answers.translating`."""

    def __init__(self, client: OpenAIClient) -> None:
        self._client = client

    def send(self, name: str, endpoint: str, requests: Iterable[tuple[str, Mapping[str, Any]]]) -> str:
        """Upload the requests and start their batch; returns its id.

        Args:
            name: ours.
            requests: each with a name of its own, by which `results` returns its answer.
        """
        url = f"/v1/{endpoint}"
        lines = (
            json.dumps({"custom_id": key, "method": "POST", "url": url, "body": body}) + "\n" for key, body in requests
        )
        file: Any = {
            "file": (f"{name}.jsonl", "".join(lines).encode(), "application/jsonl"),
            "purpose": "batch",
            "expires_after": {"anchor": "created_at", "seconds": _KEPT_SECONDS},
        }
        batch: Any = {"endpoint": url, "completion_window": "24h", "metadata": {_NAMED: name}}
        batch["input_file_id"] = _id(self._client.call("", lambda sdk: sdk.files.create(**file)))
        # Whatever the answer, the batch may be there: it is looked for by its name before another is sent.
        return _id(self._client.call("", lambda sdk: sdk.batches.create(**batch), once=True))

    def find(self, name: str, since: datetime) -> str | None:
        """The id of the batch of this name, if one was started after `since` (an hour is allowed for clocks)."""

        def look(sdk: openai.OpenAI) -> str | None:
            for batch in sdk.batches.list(limit=100):  # the newest first
                if (attribute(batch, "metadata") or {}).get(_NAMED) == name:
                    return _id(batch)
                if batch.created_at < since.timestamp() - 3600:
                    break
            return None

        return self._client.call("", look)

    def get(self, batch_id: str) -> SentBatch:
        """How far a batch is.

        Raises:
            UnreadableAnswer: it has a status that we do not know.
        """
        batch = self._client.call("", lambda sdk: sdk.batches.retrieve(batch_id))
        status = word_of(attribute(batch, "status"))
        if status not in (*_ENDED, *_UNDER_WAY):
            raise UnreadableAnswer("The batch has a status that we do not know", detail=str(batch)[:500])
        named = (attribute(batch, "output_file_id"), attribute(batch, "error_file_id"))
        errors = attribute(attribute(batch, "errors"), "data") or []
        why = "; ".join(str(attribute(error, "message"))[:200] for error in errors[:3])
        return SentBatch(batch_id, status, tuple(name for name in named if isinstance(name, str) and name), why)

    def cancel(self, batch_id: str) -> None:
        """Stop a batch, unless it has ended or is ending; what it has finished is paid for."""

        def stop(sdk: openai.OpenAI) -> None:
            from openai import ConflictError  # takes 0.9 s

            with suppress(ConflictError):  # there is nothing to stop any more
                sdk.batches.cancel(batch_id)

        self._client.call("", stop)

    def results(self, batch: SentBatch) -> dict[str, dict[str, Any] | ImgpipeError]:
        """The body of each answer, or why there is none. Lines that cannot be read are left out."""
        found: dict[str, dict[str, Any] | ImgpipeError] = {}
        for file_id in batch.files:
            try:
                content = self._client.call("", partial(_content, file_id))
            except PartnerRefused as error:
                if error.partner_status != 404:
                    raise
                log.warning("a batch's results are gone", extra={"batch": batch.id, "file": file_id})
                continue
            for line in content.splitlines():
                try:
                    key, result = _read(json.loads(line), self._client.name)
                except (ValueError, TypeError, LookupError, AttributeError):
                    log.warning("a line of a batch cannot be read", extra={"batch": batch.id})
                    continue
                found.setdefault(key, result)
        return found


def _content(file_id: str, sdk: openai.OpenAI) -> bytes:
    return sdk.files.content(file_id).content


def _read(line: Any, name: str) -> tuple[str, dict[str, Any] | ImgpipeError]:
    key, answer, error = str(line["custom_id"]), line.get("response") or {}, line.get("error")
    status, body = answer.get("status_code"), answer.get("body")
    if status == 200 and isinstance(body, dict):
        return key, body
    if not error and isinstance(status, int) and status >= 400:
        return key, from_status(status, body.get("error", body) if isinstance(body, dict) else body, name, {})
    return key, from_answer(SimpleNamespace(**{"code": "server_error", "message": "", **(error or {})}), name)


def _id(thing: Any) -> str:
    found = attribute(thing, "id")
    if not isinstance(found, str) or not 0 < len(found) < 200:
        raise UnreadableAnswer("An answer about a batch has no id in it", detail=str(thing)[:500])
    return found
