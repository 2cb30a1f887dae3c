"""Answers at half the price, for work that can wait a day.

The questions of one item go to its provider in one batch. Meanwhile the item waits in its queue and its calls are under
way in the ledger; when the batch has ended, its answers are in the ledger and the item's usual work finds them there.

    row with the calls ──► file ──► batch ──► its id in the row ──► ... ──► answers stored, row gone

A worker may be killed anywhere between: a batch whose id was not stored is found by the row's token, which it carries,
and the answers are stored in one transaction. What a budget or another item's batch kept out of the batch comes after
it. What a batch does not answer is bought in the usual way, and so is what cannot be sent for hours. A batch whose item
has left its queue, as what is deleted or cancelled does, is cancelled.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, TypeVar
from uuid import uuid4

from sqlalchemy import Row, text

from imgpipe_orchestration.billing.calls import Buyer, PaidCall, Purchase
from imgpipe_orchestration.billing.ledger import Ledger, Read
from imgpipe_orchestration.errors import (
    ImgpipeError,
    LeaseLost,
    PartnerRefused,
    Planned,
    Retryable,
    SpendingPaused,
    UnreadableAnswer,
)
from imgpipe_orchestration.partners.openai_answers import usage_of
from imgpipe_orchestration.partners.openai_batches import MOST_BYTES, MOST_SECONDS, OpenAIBatches, SentBatch
from imgpipe_orchestration.partners.usage import charged
from imgpipe_orchestration.storage.rows import autocommit, transaction
from imgpipe_orchestration.telemetry.logs import logger

log = logger(__name__)

_Result = TypeVar("_Result")

_FIRST_POLL, _LONGEST_POLL = 2.0, 600.0
_PATIENCE = 6 * 3600.0
"""Seconds after which a batch that could not be sent is given up."""


class InBatch(Planned):
    """The answers are in a batch that has not ended. No attempt is spent."""

    title = "Waiting for a batch"


@dataclass(frozen=True, slots=True)
class Question:
    """A call and the body of its request."""

    call: PaidCall
    body: dict[str, Any]
    buyer: Buyer


class HalfPrice:
    """Batches of items, of any provider that has OpenAI's Batch API."""

    def __init__(self, ledger: Ledger, batches: Callable[[str], OpenAIBatches]) -> None:
        self._ledger = ledger
        self._batches = batches

    def fetch(self, item: str, endpoint: str, questions: Callable[[], Sequence[Question]], read: Read) -> None:
        """Put the answers that a batch gives into the ledger. Only for one claim of an item at a time.

        Args:
            item: the work item that waits, `QUEUE/ID`, with the part (`/PART`) where it has several batches.
            endpoint: of the provider, such as `responses`.
            questions: all of the item, to one provider. Called where no batch is under way.

        Raises:
            InBatch: they are not there yet; asks for the time of the next look.
            LeaseLost: the item was deleted or cancelled meanwhile.
            SpendingPaused: as `Ledger.buy`.
        """
        had: Mapping[str, str] | None = {}
        while had is not None:
            row = self._under_way(item)
            if row is None:
                begun = self._begin(item, questions(), had)
                row = self._under_way(item)
                if row is None or not self._send(row, endpoint, begun):
                    return
            elif row.batch_id is None:
                if found := self._found(row):
                    self._note(row, found)
                elif not self._send(row, endpoint, self._of(row, questions())):
                    return
            else:
                had = self._settled(row, read)
        raise LeaseLost(f"{item} does not wait any more: nothing more is bought for it")

    def wait_for(self, item: str) -> None:
        """
        Raises:
            InBatch: a batch of this item has not ended, so the inputs of its questions need not be read again.
        """
        row = self._under_way(item)
        if row is not None and row.batch_id is not None:
            self._ended(row)

    def abandoned(self) -> bool:
        """Whether a batch is to be cancelled now, because its item waits no more."""
        with autocommit(self._ledger.engine) as rows:
            return bool(rows.scalar(_IS_ABANDONED))

    def cancel_abandoned(self) -> int:
        """Cancel them; returns how many were looked at. What they had finished is paid for: its cost is recorded, and
        its answers are dropped. Those that do not end at once are looked at again after a minute."""
        with transaction(self._ledger.engine) as rows:
            found = rows.execute(_TAKE_ABANDONED).all()
        for row in found:
            try:
                self._cancel(row)
            except ImgpipeError as error:
                log.info("a batch is not cancelled yet", extra={"item": row.item, "error": str(error)})
        return len(found)

    def _cancel(self, row: Row[Any]) -> None:
        if row.batch_id is None:
            if found := self._found(row):
                self._note(row, found)  # it is cancelled at the next look
            else:  # killed before it was sent
                self._end(row, again=True)
            return
        try:
            self._at(row.provider).cancel(row.batch_id)
        except PartnerRefused as error:  # it is gone, or nobody can be asked
            log.info("nothing to cancel", extra={"batch": row.batch_id, "error": error.public})
        self._settled(row, None)

    def _under_way(self, item: str) -> Row[Any] | None:
        with autocommit(self._ledger.engine) as rows:
            return rows.execute(_FIND, {"item": item}).one_or_none()

    def _begin(self, item: str, questions: Sequence[Question], had: Mapping[str, str]) -> list[Question]:
        """Take the calls that nobody has bought or is buying and that no batch left unanswered, as many as one file
        holds.

        Args:
            had: models of the calls of the batch that has just ended, by their keys. If none of them is asked any more,
                the model's new ones are left to be bought directly: each batch might end with others.
        """
        token, size = uuid4().hex, 0
        begun: list[Question] = []
        held: ImgpipeError | None = None
        with transaction(self._ledger.engine) as rows:
            keys = [question.call.key for question in questions]
            settled = set(rows.scalars(_SETTLED, {"keys": keys}))
            replaced = set() if had.keys() & keys else set(had.values())
            for question in sorted(questions, key=lambda one: one.call.key):  # in one order, as others lock them too
                if question.call.key in settled or question.call.model in replaced:
                    continue
                size += len(json.dumps(question.body)) + 200
                if begun and size > MOST_BYTES:
                    break
                taken = self._ledger.take(rows, question.call, token, question.buyer, batch_seconds=MOST_SECONDS)
                if isinstance(taken, SpendingPaused):
                    held = taken  # raised when it is committed that the budget is used up
                    break
                if taken:
                    begun.append(question)
                else:
                    held = InBatch("Another item waits for the same answers", retry_after=60)
            if begun:
                rows.execute(_BEGIN, {"item": item, "token": token, "provider": begun[0].call.provider})
        if held and not begun:
            raise held
        return begun

    def _of(self, row: Row[Any], questions: Sequence[Question]) -> list[Question]:
        """Those that the row's batch is to have: what is asked may have changed since a worker was killed."""
        with autocommit(self._ledger.engine) as rows:
            mine = set(rows.scalars(_MINE, {"token": row.token}))
        return [question for question in questions if question.call.key in mine]

    def _send(self, row: Row[Any], endpoint: str, questions: Sequence[Question]) -> bool:
        """Whether a batch of them is under way, or there are none; the provider may have no batches."""
        if questions:
            requests = ((question.call.key, question.body) for question in questions)
            try:
                self._note(row, self._patiently(row, lambda batches: batches.send(row.token, endpoint, requests)))
                return True
            except PartnerRefused as error:
                log.warning("no batch: it is bought at full price", extra={"item": row.item, "error": error.public})
        self._end(row, again=not questions)
        return not questions

    def _found(self, row: Row[Any]) -> str | None:
        """The batch that a worker sent and was killed before it could note that."""
        try:
            return self._patiently(row, lambda batches: batches.find(row.token, row.began_at))
        except PartnerRefused as error:
            if error.partner_status in (404, None):  # it has no batches, or is given up
                return None
            raise self._later(row, error.public) from error

    def _settled(self, row: Row[Any], read: Read | None) -> dict[str, str] | None:
        """Store what a batch has answered, once it has ended. Returns the models of its calls by their keys, or None
        if its item waits no more."""
        batch = self._ended(row)
        if batch is None:
            log.warning("the provider does not know our batch", extra={"batch": row.batch_id})
            return {} if self._end(row) else None
        try:
            found = self._patiently(row, lambda b: b.results(batch))
        except PartnerRefused as error:  # its answers are paid for
            raise self._later(row, error.public) from error
        with autocommit(self._ledger.engine) as rows:
            mine = rows.execute(_MINE, {"token": row.token}).all()
        first = all(call.attempts == 1 for call in mine)
        # A second one that expires before anything is done is not worth another day.
        worth = batch.status == "expired" and (first or any(isinstance(result, dict) for result in found.values()))
        waits = self._end(row, found, read, again=worth or read is None)
        told = {"item": row.item, "batch": row.batch_id, "status": batch.status, "lines": len(found)}
        log.info("batch ended", extra=told | ({"why": batch.why} if batch.why else {}))
        return {call.key: call.model for call in mine} if waits else None

    def _ended(self, row: Row[Any]) -> SentBatch | None:
        """A batch that has ended; None if the provider does not know it.

        Raises:
            InBatch: it has not.
        """
        try:
            batch = self._patiently(row, lambda b: b.get(row.batch_id))
        except PartnerRefused as error:
            if error.partner_status == 404:
                return None
            raise self._later(row, error.public) from error
        if not batch.ended:
            raise self._later(row, f"The provider works on the batch ({batch.status})")
        return batch

    def _patiently(self, row: Row[Any], ask: Callable[[OpenAIBatches], _Result]) -> _Result:
        """What `ask` returns. An outage of the provider does not count as a failure of the item.

        Raises:
            InBatch: it is away.
            PartnerRefused: away for so long that the batch is given up; or as `_at` and `OpenAIBatches`.
        """
        try:
            return ask(self._at(row.provider))
        except Retryable as error:
            if row.batch_id is None and row.waited > _PATIENCE:
                raise PartnerRefused(error.public) from error
            raise self._later(row, error.public) from error

    def _at(self, provider: str) -> OpenAIBatches:
        """
        Raises:
            PartnerRefused: MODELS_FILE does not name the provider any more, so its batches cannot be found.
        """
        try:
            return self._batches(provider)
        except KeyError as error:
            raise PartnerRefused(f"MODELS_FILE does not name {provider} any more", partner_status=404) from error

    def _later(self, row: Row[Any], why: str) -> InBatch:
        return InBatch(f"{why}; it may take a day", retry_after=min(_LONGEST_POLL, max(_FIRST_POLL, row.waited / 10)))

    def _note(self, row: Row[Any], batch_id: str) -> None:
        """Note the id of the batch that was sent.

        Raises:
            LeaseLost: this worker was stalled while it sent the batch, and another one has sent one meanwhile.
        """
        with transaction(self._ledger.engine) as rows:
            noted = rows.execute(_NOTE, {"token": row.token, "batch": batch_id}).rowcount
        if not noted:
            with suppress(ImgpipeError):  # if that fails, the batch is paid for and not used
                self._at(row.provider).cancel(batch_id)
            raise LeaseLost(f"Another worker has sent the batch of {row.item}")
        log.info("batch sent", extra={"item": row.item, "batch": batch_id})

    def _end(
        self,
        row: Row[Any],
        found: Mapping[str, dict[str, Any] | ImgpipeError] | None = None,
        read: Read | None = None,
        *,
        again: bool = False,
    ) -> bool:
        """Store what was found of a batch, if its item still waits (`read`), else only what it cost. Returns whether it
        does; `again` as of `Ledger.settle_batch`."""
        with transaction(self._ledger.engine) as rows:
            tenant = rows.scalar(_LOCK_OPEN, {"item": row.item})
            read = read if tenant is not None and read else _discarded
            # Of two that end it, as when a worker was too slow for its lease, one finds it.
            if rows.execute(_END, {"token": row.token}).rowcount:
                self._ledger.settle_batch(rows, row.token, row.item, tenant, found or {}, read, again=again)
        return tenant is not None


def _discarded(_: PaidCall, body: dict[str, Any]) -> Purchase:
    answer = json.loads(json.dumps(body), object_hook=lambda found: SimpleNamespace(**found))
    with charged(usage_of(answer, "")):
        raise UnreadableAnswer("Its batch was cancelled")


_FIND = text("""
    select *, extract(epoch from clock_timestamp() - began_at)::float as waited from ai_batches where item = :item
""")
_SETTLED = text("""
    select key from paid_calls
    where key = any(:keys) and (state = 'committed' or state = 'open' and bought_for is not null)
""")
_MINE = text("select key, model, attempts from paid_calls where owner = :token and state = 'started'")
_BEGIN = text("insert into ai_batches (item, token, provider) values (:item, :token, :provider)")
_NOTE = text("""
    update ai_batches set batch_id = :batch where token = :token and coalesce(batch_id, :batch) = :batch
""")
_OPEN = """
    from work_items where queue = split_part({0}, '/', 1) and item_id = cast(split_part({0}, '/', 2) as bigint)
    and state in ('waiting', 'claimed')
"""
# Whoever deletes or cancels the item changes this row, before or after the answers are stored.
_LOCK_OPEN = text(f"select tenant {_OPEN.format(':item')} for share")
# One without an id may be being sent: a worker that lives has done that by then.
_ABANDONED = f"""
    coalesce(cancel_at, began_at) <= clock_timestamp() and not exists (select {_OPEN.format("ai_batches.item")})
    and (batch_id is not null or began_at < clock_timestamp() - interval '15 minutes')
"""
_IS_ABANDONED = text(f"select exists (select from ai_batches where {_ABANDONED})")
_TAKE_ABANDONED = text(f"""
    update ai_batches set cancel_at = clock_timestamp() + interval '1 minute' where {_ABANDONED}
    returning *, extract(epoch from clock_timestamp() - began_at)::float as waited
""")
_END = text("delete from ai_batches where token = :token")
