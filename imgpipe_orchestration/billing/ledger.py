"""The journal of paid calls: what was asked, what came back, what it cost, and for whom.

A call is identified by (provider, operation, model, input hash, parameter hash). Its row in `paid_calls`:

    (none) ──start──► started ──commit──► committed: the answer is read from here, never bought again
                       │  ▲
                       │  └── start again: the lease ran out (the buyer was killed) or the last try failed
                       └──► open: the provider refused or failed

The buyer of a `started` call renews a lease while it waits. A second process that wants the same answer waits for it.
Every use (bought, reused, failed or lost) is a row in `paid_call_uses` with item and tenant. Providers have no
idempotency keys, so a buyer killed between answer and commit paid for nothing: one call at most, recorded as `lost`.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from decimal import Decimal
from typing import Any
from uuid import uuid4

import tenacity
from sqlalchemy import Connection, Engine, Row

from imgpipe_orchestration.billing import budgets, tally
from imgpipe_orchestration.billing import ledger_sql as sql
from imgpipe_orchestration.billing.calls import (
    Answer,
    Buyer,
    PaidCall,
    Purchase,
    UseOutcome,
    answer_of,
    usage_of,
    use,
)
from imgpipe_orchestration.billing.prices import PRICES, Price, cost_of
from imgpipe_orchestration.errors import (
    BackendUnavailable,
    ImgpipeError,
    LeaseLost,
    PartnerRefused,
    PartnerUnavailable,
    Retryable,
    SpendingPaused,
    UnreadableAnswer,
)
from imgpipe_orchestration.partners.usage import Usage
from imgpipe_orchestration.storage import jsonb
from imgpipe_orchestration.storage.leases import kept_alive
from imgpipe_orchestration.storage.rows import autocommit, transaction
from imgpipe_orchestration.telemetry import tracing
from imgpipe_orchestration.telemetry.logs import logger

log = logger(__name__)

_FOR_ALL = {*range(300, 400), 401, 402, 403, 404}
"""Statuses that would be the same for any item: a redirect (to https, to a login), a wrong key, an account without
money, a forbidden model, an unknown model or flow."""
_OF_MODEL = {403, 404}
"""Those that concern one model and not the whole provider."""


Read = Callable[[PaidCall, dict[str, Any]], Purchase]
"""Returns the answer to a call in the body of a response from a batch; raises what is wrong with it. The model may be
another one than that of today's settings."""

HALF = Decimal("0.5")
"""What of its list price OpenAI takes for a call in a batch: https://platform.openai.com/docs/guides/batch"""


@dataclass(frozen=True)
class Ledger:
    """Buys answers that nobody has bought yet. Thread-safe; one per process is enough. Times are in seconds."""

    engine: Engine
    prices: Mapping[str, Price] = field(default_factory=lambda: PRICES)
    lease: float = 30.0
    patience: float = 180.0
    """How long to wait for another buyer of the same answer."""
    daily_budget_usd: float = 0.0
    """The budget of a day that DAILY_BUDGET_USD sets; 0 for none. Others are rows (see `budgets`)."""
    pause: float = 300.0
    """How long to wait when the provider's quota or the budget is used up."""
    record_for: float = 3600.0
    """How long to keep trying to record a paid answer while the database is down. No run waits longer."""

    def buy(self, call: PaidCall, purchase: Callable[[], Purchase], *, buyer: Buyer) -> Answer:
        """The committed answer to `call`, bought with `purchase` if there is none.

        Args:
            purchase: asks the provider; for a binary answer it also stores the object, unless a buyer that died had
                already stored it. Runs outside any transaction.

        Raises:
            LeaseLost: the item was deleted meanwhile.
            PartnerRefused: a batch had the model's refusal. It is told once, or each time to one that is `patient`.
            SpendingPaused: the budget is used up; or the provider said within the last `pause` seconds that the
                quota is, that it does not accept our credential, or that it does not know the model.
            Retryable: another buyer has been waiting for longer than `patience`.
            BackendUnavailable: the journal cannot be reached.
            Exception: whatever `purchase` raises, after it was recorded.
        """
        give_up = time.monotonic() + self.patience
        pause = 0.02
        while True:
            token = uuid4().hex
            start = self._start(call, token, buyer)
            if isinstance(start, Answer):
                return start
            if isinstance(start, SpendingPaused):
                raise start
            if start:
                return self._purchase(call, token, purchase, buyer)
            if time.monotonic() >= give_up:
                raise Retryable(f"Another worker is still waiting for {call.provider}'s answer", retry_after=10)
            time.sleep(pause)
            pause = min(1.0, pause * 1.5)

    def resume(self) -> None:
        """Ask every provider again, because a person says that what paused it is mended."""
        with autocommit(self.engine) as connection:
            connection.execute(sql.RESUME)

    def _start(self, call: PaidCall, token: str, buyer: Buyer) -> Answer | SpendingPaused | bool:
        """The answer, if there is one; a budget's refusal, which is raised when it is committed; or whether `token` has
        the right to buy, because nobody else is buying."""
        with autocommit(self.engine) as connection:
            row = connection.execute(sql.FIND, {"key": call.key}).one()
            mine = {"key": call.key, "item": buyer.item}
            refused = row.state == "open" and row.answered_by and row.bought_for == buyer.item
            if refused and (buyer.patient or connection.execute(sql.FETCHED, mine).one_or_none()):
                raise PartnerRefused(row.error)
            if row.state == "committed":
                if row.bought_for == buyer.item and connection.execute(sql.FETCHED, mine).one_or_none():
                    tally.note(call.operation, row.cost_usd, bought=True)
                    return answer_of(row, bought=True)
                counted = buyer.patient and connection.scalar(sql.COUNTED, mine)
                saved = None if counted else row.cost_usd
                connection.execute(sql.RECORD, use(call, buyer, UseOutcome.REUSED, usage=usage_of(row), saved=saved))
                tally.note(call.operation, saved, bought=False)
                return answer_of(row, bought=False)
        vanished = row.state == "started" and row.bought_for is None
        if vanished and not row.expired:
            return False
        budgeted = row.budgeted or self.daily_budget_usd
        # Usually START is the only statement and needs no transaction.
        with (transaction if vanished or budgeted else autocommit)(self.engine) as connection:
            taken = self.take(connection, call, token, buyer, budgeted=bool(budgeted))
            if taken is True and vanished:
                lost = "an earlier buyer vanished while it was asking"
                connection.execute(sql.RECORD, use(call, buyer, UseOutcome.LOST, error=lost))
                log.warning("taking over a paid call", extra={"call": call.key, "provider": call.provider})
            return taken

    def take(
        self,
        connection: Connection,
        call: PaidCall,
        token: str,
        buyer: Buyer,
        *,
        budgeted: bool = True,
        batch_seconds: float = 0.0,
    ) -> bool | SpendingPaused:
        """Give `token` the right to buy, and reserve the likely price; False if somebody else is buying or has bought.

        Args:
            batch_seconds: how long the batch may take, at half the price. 0: not a batch.

        Raises:
            LeaseLost, SpendingPaused: as `buy`. Of a budget's refusal the caller may want to keep what it did before,
                so that is returned.
        """
        kind = {"provider": call.provider, "operation": call.operation, "model": call.model}
        reserved: Decimal | SpendingPaused | None = Decimal(0)
        if budgeted:
            scopes = ["total", f"pipeline:{buyer.pipeline}", f"provider:{call.provider}"]
            scopes += [f"tenant:{buyer.tenant}"] if buyer.tenant else []
            share = HALF if batch_seconds else Decimal(1)
            reserved = budgets.set_aside(connection, scopes, kind, self.daily_budget_usd, self.pause, share)
        if reserved is None:
            return False
        if isinstance(reserved, SpendingPaused):
            return reserved
        values = {
            **asdict(call),
            **asdict(buyer),
            "key": call.key,
            "owner": token,
            "lease": batch_seconds or self.lease,
            "reserved": reserved,
            "bought_for": buyer.item if batch_seconds else None,
        }
        if connection.execute(sql.START, values).one_or_none() is not None:
            return True
        if connection.scalar(sql.DELETED, {"item": buyer.item}) is not None:
            raise LeaseLost(f"{buyer.item} was deleted: nothing more is bought for it")
        paused = connection.execute(sql.PAUSED, {"provider": call.provider, "model": call.model}).one_or_none()
        if paused is not None:
            raise SpendingPaused(paused.reason, retry_after=float(paused.seconds))
        return False

    def _purchase(self, call: PaidCall, token: str, purchase: Callable[[], Purchase], buyer: Buyer) -> Answer:
        began = time.monotonic()

        def renewed() -> None:
            with transaction(self.engine) as connection:
                connection.execute(sql.RENEW, {"owner": token, "lease": self.lease})

        try:
            # A call may take minutes; leases are short.
            with (
                kept_alive(renewed, self.lease, name="paid-call"),
                tracing.span(f"{call.provider} {call.operation}", "client") as span,
            ):
                tracing.note(span, model=call.model, item=buyer.item, pipeline=buyer.pipeline)
                bought = purchase()
                tracing.note(span, input_tokens=bought.usage.input_tokens, output_tokens=bought.usage.output_tokens)
        except BaseException as error:
            seconds = time.monotonic() - began
            if not (isinstance(error, PartnerRefused) and error.partner_status in _FOR_ALL):
                self._reopen(call, token, buyer, error, seconds)
                raise
            stopped = SpendingPaused(f"{error.public}: what needs it waits until that is fixed", detail=error.detail)
            self._reopen(call, token, buyer, stopped, seconds, error.partner_status in _OF_MODEL)
            raise stopped from error
        return self._commit(call, token, bought, buyer, time.monotonic() - began)

    def _commit(self, call: PaidCall, token: str, bought: Purchase, buyer: Buyer, seconds: float) -> Answer:
        """Record the answer. It is paid for, so wait for a database that is away.

        Raises:
            LeaseLost: the item was purged meanwhile; what the answer cost is recorded.
        """
        values = self._bought(call, token, bought, buyer, seconds)
        cost = values["cost"]
        patiently = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(BackendUnavailable),
            wait=tenacity.wait_random_exponential(multiplier=0.2, max=2),
            stop=tenacity.stop_after_delay(self.record_for),
            reraise=True,
        )

        def write() -> Row[Any]:
            with autocommit(self.engine) as connection:
                # The first to commit wins; what a late buyer spent is recorded as well.
                first = connection.execute(sql.COMMIT, values).one_or_none()
                return first or connection.execute(sql.FIND, {"key": call.key}).one()

        if cost is None and self.daily_budget_usd:
            log.warning("budgets do not see a call of unknown cost", extra={"model": values["answered_by"]})
        tally.note(call.operation, cost, bought=True)
        row = patiently(write)
        if row.state != "committed":
            raise LeaseLost(f"{buyer.item} was deleted while {call.provider} was asked")
        return answer_of(row, bought=True)

    def _bought(
        self, call: PaidCall, token: str, bought: Purchase, buyer: Buyer, seconds: float, *, half: bool = False
    ) -> dict[str, Any]:
        """The values of `ledger_sql.COMMIT`."""
        usage, cost = bought.usage, self._cost(call, bought.usage, half)
        return {
            **use(call, buyer, UseOutcome.BOUGHT, usage=usage, cost=cost, seconds=seconds, half=half),
            "owner": token,
            "value": jsonb.dumps(bought.value),
            "object_key": bought.object_key,
            "answered_by": usage.model or call.model,
            "input_image_tokens": usage.input_image_tokens,
            "cached_tokens": usage.cached_tokens,
            "units": usage.units,
        }

    def _failure(
        self, call: PaidCall, buyer: Buyer, error: BaseException, seconds: float, *, half: bool = False
    ) -> dict[str, Any]:
        """The values of `ledger_sql.RECORD` for a call without an answer of use."""
        reason, usage = type(error).__name__, None
        if isinstance(error, ImgpipeError):
            reason, usage = error.public, error.usage
        if isinstance(error, UnreadableAnswer):
            usage = usage or Usage()  # an answer came, so it was charged; how much is unknown
        outcome = UseOutcome.BOUGHT if usage else UseOutcome.FAILED
        cost = self._cost(call, usage, half) if usage else None
        return use(call, buyer, outcome, usage=usage, cost=cost, seconds=seconds, error=reason, half=half)

    def _cost(self, call: PaidCall, usage: Usage, half: bool = False) -> Decimal | None:
        cost = cost_of(usage.model or call.model, usage, self.prices)
        return cost * HALF if cost is not None and half else cost

    def settle_batch(
        self,
        connection: Connection,
        token: str,
        item: str,
        tenant: str | None,
        results: Mapping[str, dict[str, Any] | ImgpipeError],
        read: Read,
        *,
        again: bool = False,
    ) -> None:
        """Store the answers of a batch that has ended, in the caller's transaction; calls without one are open again.

        Args:
            item: for which the batch was sent.
            tenant: the item's; None: nobody waits for it any more, so no row is kept of a call without an answer.
            results: responses' bodies, or what took their place, by the call's key.
            again: calls without an answer may go into another batch.
        """
        for row in connection.execute(sql.OF_BATCH, {"token": token, "keys": list(results)}):
            call = PaidCall(row.provider, row.operation, row.model, row.input_hash, row.parameter_hash)
            # If it is not `ours`, an urgent caller that did not wait has bought the answer as well.
            mine = (row.bought_for, row.tenant) if row.ours else (item, tenant or "")
            buyer = Buyer(row.pipeline, *mine)
            try:
                result = results.get(row.key, PartnerUnavailable("The batch has no answer to this question"))
                if isinstance(result, ImgpipeError):
                    raise result
                values = self._bought(call, token, read(call, result), buyer, 0.0, half=True)
            except BackendUnavailable:  # an object could not be stored: all is read again
                raise
            except ImgpipeError as error:
                refused = isinstance(error, PartnerRefused) and error.usage is not None
                used = {**self._failure(call, buyer, error, 0.0, half=True), "owner": token}
                used |= {"again": again and not refused, "refused": refused}
                if tenant is None:
                    connection.execute(sql.FORGET, used)
                connection.execute(sql.RECORD if tenant is None else sql.REOPEN, used)
            else:
                connection.execute(sql.COMMIT if row.ours else sql.RECORD, values)

    def _reopen(
        self, call: PaidCall, token: str, buyer: Buyer, error: BaseException, seconds: float, of_model: bool = False
    ) -> None:
        """Record the failure and its cost. The next buyer can try at once, unless the provider (or model) is paused.

        If the database is away, the lease ends by itself.
        """
        used = self._failure(call, buyer, error, seconds)
        reason = used["error"]
        if used["outcome"] == UseOutcome.BOUGHT.value:
            tally.note(call.operation, used["cost"], bought=True)
        try:
            with transaction(self.engine) as connection:
                connection.execute(sql.REOPEN, {**used, "owner": token, "again": False, "refused": False})
                if isinstance(error, SpendingPaused):
                    wait = error.retry_after or self.pause
                    name = f"{call.provider}/{call.model}" if of_model else call.provider
                    connection.execute(sql.PAUSE, {"provider": name, "reason": reason, "seconds": wait})
        except BackendUnavailable as away:
            log.warning("could not write down a failed paid call", extra={"call": call.key, "error": away.detail})
