"""Batches that are cancelled, providers that are away, workers that are killed, budgets that hold a batch back."""

import subprocess
import sys
import threading
import time
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import text

from imgpipe_orchestration.billing import budgets
from imgpipe_orchestration.billing.batches import HalfPrice, InBatch
from imgpipe_orchestration.devstack.ports import free_port
from imgpipe_orchestration.errors import LeaseLost, SpendingPaused
from imgpipe_orchestration.partners.openai import OpenAIClient
from imgpipe_orchestration.partners.openai_batches import OpenAIBatches
from imgpipe_orchestration.partners.retry import RetryPolicy
from imgpipe_orchestration.storage.rows import transaction
from imgpipe_orchestration_tests.billing.half_price import COUNT, ITEM, Shop, questions, read, relay
from imgpipe_orchestration_tests.devstack.running import wait_for
from imgpipe_orchestration_tests.partners.wire import serving


def test_a_batch_that_nobody_waits_for_is_cancelled_and_what_it_had_finished_is_on_the_bill(shop: Shop) -> None:
    def begin(seconds: float) -> str:
        shop.enqueue()
        shop.begin(seconds)
        assert not shop.batches.abandoned()
        with transaction(shop.engine) as rows:
            return str(rows.scalar(text("select batch_id from ai_batches")))

    def cancel() -> list[Any]:
        shop.withdraw()
        assert shop.batches.abandoned()
        assert shop.batches.cancel_abandoned() == 1
        assert (shop.left(), shop.batches.abandoned(), reserved()) == (0, False, 0)
        return [use.cost_usd for use in shop.uses() if use.outcome == "bought" and use.half_price]

    def reserved() -> Decimal:
        with transaction(shop.engine) as rows:
            return budgets.standings(rows, 0)[0].reserved_usd

    shop.buy(questions(9)[8])  # what is usual
    with transaction(shop.engine) as rows:
        budgets.put(rows, "pipeline:vision_reports", "day", Decimal(1), [1.0])
    begin(600)
    assert cancel() == []
    begin(600)
    shop.standins.fault("openai", "server_error", operation="batch")
    shop.withdraw()
    shop.batches.cancel_abandoned()
    assert shop.left() == COUNT + 1 and reserved(), "the provider has begun to cancel it"
    with transaction(shop.engine) as rows:
        rows.execute(text("update ai_batches set cancel_at = cancel_at - interval '1 minute'"))
    assert cancel() == []
    ended = begin(0.3)
    wait_for(lambda: OpenAIBatches(shop.client).get(ended).ended, "the batch to end")
    assert len(cancel()) == COUNT
    assert shop.bought_directly() == COUNT, "its answers are dropped"


@pytest.mark.parametrize("deleted", [False, True])
def test_a_batch_of_a_provider_that_models_file_names_no_more_is_given_up(shop: Shop, deleted: bool) -> None:
    shop.begin(60)
    nobody: dict[str, OpenAIBatches] = {}
    batches = HalfPrice(shop.ledger, nobody.__getitem__)
    if deleted:
        shop.withdraw()
        assert batches.cancel_abandoned() == 1
    else:
        batches.fetch(ITEM, "responses", questions, read)
        assert shop.bought_directly() == COUNT
    assert shop.left() == 0


def test_a_worker_that_was_at_it_when_its_item_was_deleted_stores_no_answer(shop: Shop) -> None:
    shop.begin(0.3)
    shop.withdraw()
    with pytest.raises(LeaseLost):  # or it would go on to buy them at full price
        shop.fetch()
    with transaction(shop.engine) as rows:
        assert rows.scalar(text("select count(*) from paid_calls")) == 0
    assert [(use.outcome, use.half_price, use.error) for use in shop.uses()] == [
        ("bought", True, "Its batch was cancelled")
    ] * COUNT


@pytest.mark.parametrize("where", ["/files", "/batches"])
@pytest.mark.parametrize("how", ["breaks off", "500", "500 when it is done", "too slow"])
def test_a_provider_that_is_away_when_a_batch_is_sent_costs_no_attempt_and_nothing_twice(
    shop: Shop, where: str, how: str
) -> None:
    away = True

    def between(command: str, path: str, pass_on: Callable[[], None]) -> None:
        """Away for each request to `where`. One that is too slow has done what it was asked."""
        if not (away and command == "POST" and path == where):
            pass_on()
        elif how == "too slow":
            pass_on()
            time.sleep(1.5)
        elif how == "500 when it is done":
            pass_on()
            raise ConnectionError

    with serving(relay(shop.standins.openai_url, between, breaks_off=how == "breaks off")) as proxy:
        policy = RetryPolicy(attempts=2, first_wait=0.1, budget=10)
        client = OpenAIClient(f"{how} {where}", base_url=proxy.url, timeout=1, policy=policy)
        mine = Shop(shop.engine, shop.standins, client)
        with pytest.raises(InBatch) as waits:
            mine.batches.fetch(ITEM, "responses", questions, read)
        assert not waits.value.spends_attempt and waits.value.retry_after
        away = False
        mine.fetch()
        client.close()
    assert (shop.bought_directly(), shop.left(), len(shop.answered())) == (0, 0, COUNT)
    assert len(shop.standins.calls("openai", "batches")) == 1


def test_a_worker_that_stalls_while_it_sends_a_batch_cancels_it_if_another_one_was_sent_meanwhile(shop: Shop) -> None:
    def between(command: str, path: str, pass_on: Callable[[], None]) -> None:
        if (command, path) == ("POST", "/batches"):
            shop.begin(2)
        pass_on()

    with serving(relay(shop.standins.openai_url, between)) as proxy:
        client = OpenAIClient("stalled", base_url=proxy.url, policy=RetryPolicy(attempts=1, budget=10))
        with pytest.raises(LeaseLost):
            Shop(shop.engine, shop.standins, client).batches.fetch(ITEM, "responses", questions, read)
        client.close()
    assert len(shop.standins.calls("openai", "batch_cancel")) == 1
    shop.fetch()
    assert (shop.bought_directly(), shop.left(), len(shop.answered())) == (0, 0, COUNT)


def test_what_no_provider_takes_for_hours_is_bought_at_full_price(shop: Shop) -> None:
    client = OpenAIClient("nobody", base_url=f"http://127.0.0.1:{free_port()}", policy=RetryPolicy(attempts=1))
    mine = Shop(shop.engine, shop.standins, client)
    with pytest.raises(InBatch, match="could not be reached"):
        mine.batches.fetch(ITEM, "responses", questions, read)
    with transaction(shop.engine) as rows:
        rows.execute(text("update ai_batches set began_at = began_at - interval '7 hours'"))
    mine.fetch()
    assert (shop.left(), shop.bought_directly()) == (0, COUNT)
    client.close()


def test_a_budget_holds_a_batch_at_half_of_what_its_calls_usually_cost(shop: Shop) -> None:
    shop.buy(questions(9)[8])  # what is usual: 0.0006 USD
    with transaction(shop.engine) as rows:
        budgets.put(rows, "pipeline:vision_reports", "day", Decimal("0.0007"), [1.0])
    with pytest.raises(SpendingPaused):
        shop.batches.fetch(ITEM, "responses", questions, read)
    with transaction(shop.engine) as rows:
        assert budgets.standings(rows, 0)[0].used_up, "as everybody can see"
        budgets.put(rows, "pipeline:vision_reports", "day", Decimal("0.0013"), [1.0])
    shop.begin(0.3)
    with transaction(shop.engine) as rows:
        (budget,) = budgets.standings(rows, 0)
    assert budget.reserved_usd == Decimal("0.0006"), "two of four, at 0.0003 each"
    with pytest.raises(SpendingPaused):
        shop.buy(questions(6)[5])
    with pytest.raises(SpendingPaused):
        shop.fetch()
    assert len(shop.answered()) == 2
    with transaction(shop.engine) as rows:
        budgets.put(rows, "pipeline:vision_reports", "day", Decimal(1), [1.0])
    shop.fetch()
    assert shop.bought_directly() == 0, "the other two were in a batch as well"
    assert (len(shop.answered()), len(shop.standins.calls("openai", "batches"))) == (COUNT, 2)


def test_where_a_budget_knows_no_price_yet_a_batch_holds_back_neither_its_own_calls_nor_others(shop: Shop) -> None:
    with transaction(shop.engine) as rows:
        budgets.put(rows, "pipeline:vision_reports", "day", Decimal(1), [1.0])
    shop.begin(600)
    assert shop.left() == COUNT + 1, "all are in it"
    assert shop.buy(questions(6)[5])


WORKER = """
import sys
from imgpipe_orchestration.billing.batches import HalfPrice
from imgpipe_orchestration.billing.ledger import Ledger
from imgpipe_orchestration.partners.openai import OpenAIClient
from imgpipe_orchestration.partners.openai_batches import OpenAIBatches
from imgpipe_orchestration.storage.rows import connect
from imgpipe_orchestration_tests.billing.half_price import ITEM, questions, read

client = OpenAIClient("worker", base_url=sys.argv[2], timeout=60)
HalfPrice(Ledger(connect(sys.argv[1])), lambda _: OpenAIBatches(client)).fetch(ITEM, "responses", questions, read)
"""


@pytest.mark.slow
@pytest.mark.parametrize("passed_on", [False, True], ids=["before", "after"])
@pytest.mark.parametrize(
    "at", ["POST /files", "POST /batches", "GET /batches/", "GET /files/", "results"], ids=lambda at: at.strip("/")
)
def test_a_worker_killed_at_any_step_buys_each_answer_once_and_loses_none(
    shop: Shop, postgres_url: str, at: str, passed_on: bool
) -> None:
    worker: subprocess.Popen[bytes]
    locked = threading.Event()

    def between(command: str, path: str, pass_on: Callable[[], None]) -> None:
        """Kills the worker when its request comes, or when that was answered and the answer is not yet back."""
        if f"{command} {path}".startswith(at) and (path != "/batches" or command == "POST"):
            if passed_on:
                pass_on()
            worker.kill()
        else:
            if at == "results" and path.startswith("/files/"):
                locked.wait(50)
            pass_on()

    key = questions()[2].call.key
    with serving(relay(shop.standins.openai_url, between)) as proxy, transaction(shop.engine) as rows:
        command = [sys.executable, "-c", WORKER, postgres_url, proxy.url]
        worker = subprocess.Popen(command)
        if at == "results":  # while they are stored: this one's row is locked
            wait_for(lambda: _under_way(shop), "the batch to be begun")
            rows.execute(text("select from paid_calls where key = :key for update"), {"key": key})
            locked.set()
            if passed_on:
                wait_for(lambda: any("/content" in path for path in proxy.paths), "the results to be read")
            worker.kill()
        assert worker.wait(60) == -9
    shop.fetch()
    assert shop.bought_directly() == 0
    assert shop.left() == 0
    assert (len(shop.answered()), len(set(shop.answered()))) == (COUNT, COUNT)
    assert len(shop.standins.calls("openai", "batches")) == 1
    assert sum(use.outcome == "bought" for use in shop.uses()) == COUNT


def _under_way(shop: Shop) -> bool:
    with transaction(shop.engine) as rows:
        return bool(rows.scalar(text("select exists (select from ai_batches)")))
