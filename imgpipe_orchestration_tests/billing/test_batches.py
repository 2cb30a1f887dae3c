"""Half price: questions that go to the provider in a batch, whatever becomes of it and of the worker."""

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any

import pytest
import requests
from sqlalchemy import Engine, text

from imgpipe_orchestration.billing import budgets
from imgpipe_orchestration.billing.batches import HalfPrice, InBatch, Question
from imgpipe_orchestration.billing.calls import Buyer, PaidCall, Purchase
from imgpipe_orchestration.billing.ledger import Ledger
from imgpipe_orchestration.devstack.ports import free_port
from imgpipe_orchestration.errors import ImgpipeError, LeaseLost, PartnerRefused, Planned, SpendingPaused
from imgpipe_orchestration.partners.openai import OpenAIClient
from imgpipe_orchestration.partners.openai_batches import OpenAIBatches
from imgpipe_orchestration.partners.retry import RetryPolicy
from imgpipe_orchestration.partners.usage import Usage, charged
from imgpipe_orchestration.storage.claims import Claims, Item, Queue
from imgpipe_orchestration.storage.rows import transaction
from imgpipe_orchestration_tests.conftest import StandInAccess
from imgpipe_orchestration_tests.devstack.running import wait_for
from imgpipe_orchestration_tests.partners.wire import Behaviour, reply, serving

QUEUE = Queue("things")
ITEM, COUNT = "things/1", 4


def questions(count: int = COUNT, item: str = ITEM) -> list[Question]:
    return [
        Question(
            PaidCall.of("openai", "responses", "gpt-6-luna", inputs=[f"question {number}"]),
            {"model": "gpt-6-luna", "input": f"question {number}"},
            Buyer("vision_reports", f"{item}/{number}", "T"),
        )
        for number in range(count)
    ]


def read(body: dict[str, Any]) -> Purchase:
    return Purchase(Usage("gpt-6-luna", body["usage"]["input_tokens"], 1000), body["id"])


@dataclass
class Shop:
    """A ledger and its batches at the stand-in."""

    engine: Engine
    standins: StandInAccess
    client: OpenAIClient

    def __post_init__(self) -> None:
        self.ledger = Ledger(self.engine)
        self.batches = HalfPrice(self.ledger, lambda _: OpenAIBatches(self.client))

    def enqueue(self) -> None:
        with transaction(self.engine) as rows:
            Claims.enqueue(rows, QUEUE, [Item(1, "T"), Item(2, "T")], again=True)

    def withdraw(self) -> None:
        """As what deletes or cancels the item does."""
        with transaction(self.engine) as rows:
            Claims.withdraw(rows, QUEUE, [1], "It was deleted.")

    def begin(self, seconds: float) -> InBatch:
        """Send a batch that takes so long."""
        self.standins.admin("POST", "delays", {"openai.batch_work": seconds})
        with pytest.raises(InBatch) as waits:
            self.batches.fetch(ITEM, "responses", questions, read)
        return waits.value

    def fetch(self, item: str = ITEM, ask: Callable[[], list[Question]] = questions) -> None:
        """As workers do that are called again while the batch is under way."""

        def ended() -> bool:
            try:
                self.batches.fetch(item, "responses", ask, read)
            except InBatch:
                return False
            return True

        wait_for(ended, "the batch to end")

    def buy(self, question: Question) -> bool:
        """Whether the direct way had to ask the provider."""
        asked = []

        def purchase() -> Purchase:
            asked.append(question)
            return Purchase(Usage("gpt-6-luna", 1000, 1000), "direct")

        self.ledger.buy(question.call, purchase, buyer=question.buyer)
        return bool(asked)

    def bought_directly(self, ask: Callable[[], list[Question]] = questions) -> int:
        return sum(self.buy(question) for question in ask())

    def answered(self) -> list[str]:
        """What the provider has answered in batches; each twice where it was asked twice."""
        return sorted(call["input_hash"] for call in self.standins.calls("openai", "responses"))

    def uses(self) -> list[Any]:
        with transaction(self.engine) as rows:
            return list(rows.execute(text("select * from paid_call_uses order by id")))

    def left(self) -> int:
        """Batches and calls that still count as under way."""
        with transaction(self.engine) as rows:
            statement = "select (select count(*) from ai_batches) + count(*) from paid_calls where state = 'started'"
            return int(rows.scalar(text(statement)) or 0)


@pytest.fixture
def shop(engine: Engine, standins: StandInAccess, request: pytest.FixtureRequest) -> Iterator[Shop]:
    policy = RetryPolicy(attempts=1, budget=10)
    client = OpenAIClient(request.node.nodeid, base_url=standins.openai_url, timeout=5, policy=policy)
    shop = Shop(engine, standins, client)
    shop.enqueue()
    yield shop
    client.close()


def test_a_batch_buys_each_answer_once_at_half_the_price(shop: Shop) -> None:
    waits = shop.begin(0.5)
    assert isinstance(waits, Planned) and not waits.spends_attempt and waits.retry_after
    shop.fetch()
    assert shop.bought_directly() == 0
    assert (len(shop.answered()), len(shop.standins.calls("openai", "batches")), shop.left()) == (COUNT, 1, 0)
    uses = shop.uses()
    assert [(use.outcome, use.half_price, use.item.rpartition("/")[0]) for use in uses] == [("bought", True, ITEM)] * 4
    # 2 tokens for 0.10 and 1,000 for 0.50 USD a million, and half of that.
    assert {use.cost_usd for use in uses} == {Decimal("0.00025010")}
    assert not shop.buy(questions()[0])
    assert shop.uses()[-1].outcome == "reused", "the second time it is one"


@pytest.mark.parametrize(
    ("fault", "operation", "batches", "direct"),
    [
        ("expired", "batch", 2, 0),
        ("cancelled", "batch", 1, 2),
        ("failed", "batch", 1, 4),
        ("missing_lines", "batch", 1, 2),
        ("server_error", "responses", 1, 1),
        ("wrong_shape", "batch", 1, 0),
        ("not_found", "batch", 1, 4),
        ("not_found", "file", 1, 4),
        ("not_json", "file", 1, 4),
        ("not_found", "files", 0, 4),
        ("server_error", "batch", 1, 0),
        ("unauthorized", "batch", 1, 0),
        ("unauthorized", "file", 1, 0),
    ],
)
def test_what_a_batch_does_not_answer_is_bought_in_another_way(
    shop: Shop, fault: str, operation: str, batches: int, direct: int
) -> None:
    shop.standins.fault("openai", fault, operation=operation)
    shop.fetch()
    assert shop.left() == 0
    assert shop.bought_directly() == direct
    assert len(shop.standins.calls("openai", "batches")) == batches
    if operation != "file":  # what is lost with the results was paid for
        assert len(set(shop.answered())) == len(shop.answered())


def test_a_batch_that_expires_before_anything_is_done_is_sent_once_more(shop: Shop) -> None:
    shop.standins.fault("openai", "expired", operation="batch", count=None)
    shop.fetch(ask=lambda: questions(1))
    assert (len(shop.standins.calls("openai", "batches")), shop.left()) == (2, 0)
    assert shop.buy(questions()[0]), "at full price"


@pytest.mark.parametrize(("fault", "batches", "direct"), [("expired", 2, 0), ("missing_lines", 1, 2)])
def test_a_worker_killed_after_a_batch_is_settled_does_not_change_where_the_rest_is_bought(
    shop: Shop, fault: str, batches: int, direct: int
) -> None:
    def killed() -> list[Question]:
        raise KeyboardInterrupt

    shop.standins.fault("openai", fault, operation="batch")
    shop.begin(0.3)
    with pytest.raises(KeyboardInterrupt):
        shop.fetch(ask=killed)
    shop.fetch()
    assert (shop.bought_directly(), shop.left()) == (direct, 0)
    assert (len(shop.standins.calls("openai", "batches")), len(shop.answered())) == (batches, COUNT - direct)


Lines = list[dict[str, Any]]
LIES: dict[str, tuple[Callable[[Lines], Lines], int]] = {
    "a missing line": (lambda lines: lines[1:], 1),
    "a name twice": (lambda lines: [*lines, lines[0] | {"response": lines[1]["response"]}], 0),
    "a name of nobody": (lambda lines: [*lines, lines[0] | {"custom_id": "somebody else's"}], 0),
    "no name": (lambda lines: [*lines[1:], {"response": lines[0]["response"]}], 1),
    "an error": (
        lambda lines: [lines[0] | {"response": None, "error": {"code": "oh", "message": "no"}}, *lines[1:]],
        1,
    ),
    "an error of no shape": (lambda lines: [lines[0] | {"response": None, "error": "oh"}, *lines[1:]], 1),
    "a status that is none": (lambda lines: [lines[0] | {"response": {"status_code": "fine"}}, *lines[1:]], 1),
    "a body that is none": (lambda lines: [lines[0] | {"response": {"status_code": 200, "body": []}}, *lines[1:]], 1),
    "a line that is none": (lambda lines: [{}, *lines[1:]], 1),
}


def fetch_changed(shop: Shop, change: Callable[[Lines], Lines]) -> None:
    def rewrite(content: bytes) -> bytes:
        lines = change([json.loads(line) for line in content.splitlines()])
        return b"\n".join(json.dumps(line).encode() for line in lines)

    with serving(_proxy(shop.standins.openai_url, lambda _, __, pass_on: pass_on(), rewrite)) as proxy:
        client = OpenAIClient("k", base_url=proxy.url, timeout=5, policy=RetryPolicy(attempts=1, budget=10))
        Shop(shop.engine, shop.standins, client).fetch()
        client.close()


@pytest.mark.parametrize("lie", LIES)
def test_results_that_lie_cost_no_more_than_what_they_lie_about(shop: Shop, lie: str) -> None:
    change, direct = LIES[lie]
    fetch_changed(shop, change)
    assert shop.left() == 0
    assert shop.bought_directly() == direct
    assert {use.half_price for use in shop.uses() if use.outcome == "bought"} == ({True, False} if direct else {True})


@pytest.mark.parametrize(
    ("status", "kind"),
    [(400, "invalid_request_error"), (400, "image_generation_user_error"), (500, "server_error"), (404, None)],
)
def test_an_error_in_a_batch_is_free_and_told_as_that_of_a_direct_call(shop: Shop, status: int, kind: str) -> None:
    body = {"error": {"message": "It went wrong.", "type": kind, "param": None, "code": None}}

    def change(lines: Lines) -> Lines:
        return [lines[0] | {"response": {"status_code": status, "body": body}}, *lines[1:]]

    def refuse(handler: Any, _: int) -> None:
        reply(handler, json.dumps(body).encode(), status, Content_Type="application/json")

    fetch_changed(shop, change)
    with serving(refuse) as server:
        client = OpenAIClient("k", base_url=server.url, policy=RetryPolicy(attempts=1))
        with pytest.raises(ImgpipeError) as direct:
            client.models()
        client.close()
    failed = [(use.outcome, use.cost_usd, use.error) for use in shop.uses() if use.error]
    assert failed == [("failed", None, direct.value.public)]


def test_an_answer_that_cannot_be_read_was_paid_for_and_does_no_harm_to_the_others(shop: Shop) -> None:
    bad = questions()[1].call.key

    def picky(body: dict[str, Any]) -> Purchase:
        return Purchase(Usage("gpt-6-luna", 1000, 1000), "fine")

    shop.standins.fault("openai", "server_error", operation="responses", match="question 1")
    shop.batches.fetch(ITEM, "responses", questions, picky)
    assert {use.key: use.outcome for use in shop.uses()} == {
        one.call.key: "failed" if one.call.key == bad else "bought" for one in questions()
    }
    assert shop.bought_directly() == 1


@pytest.mark.parametrize(("fault", "batches"), [(None, 1), ("expired", 2)])
def test_a_refusal_in_a_batch_is_final_until_the_item_is_tried_again(
    shop: Shop, fault: str | None, batches: int
) -> None:
    def refusing(_: dict[str, Any]) -> Purchase:
        with charged(Usage("gpt-6-luna", 1000, 1000)):
            raise PartnerRefused("The model refused")

    def told(question: Question) -> None:
        with pytest.raises(PartnerRefused, match="The model refused"):
            shop.buy(question)

    if fault:
        shop.standins.fault("openai", fault, operation="batch")
    shop.batches.fetch(ITEM, "responses", questions, refusing)
    for one in questions():
        told(replace(one, buyer=replace(one.buyer, patient=True)))
        told(one)
    assert (len(shop.answered()), len(shop.standins.calls("openai", "batches"))) == (COUNT, batches)
    assert [use.half_price for use in shop.uses() if use.outcome == "bought"] == [True] * COUNT
    shop.fetch()
    assert (shop.bought_directly(), shop.left(), len(shop.answered())) == (0, 0, 2 * COUNT)


def test_who_does_not_want_to_wait_buys_the_answer_and_the_batch_takes_nothing_from_that(shop: Shop) -> None:
    shop.begin(1)
    first = questions()[0]
    assert shop.buy(replace(first, buyer=replace(first.buyer, tenant="urgent")))
    with pytest.raises(InBatch, match="Another item"):
        shop.batches.fetch("things/2", "responses", lambda: questions(2, "things/2"), read)
    shop.fetch()
    assert shop.bought_directly() == 0
    assert sum(use.outcome == "bought" for use in shop.uses()) == COUNT + 1, "the journal has both"
    assert [use.tenant for use in shop.uses() if use.half_price] == ["T"] * COUNT


def test_what_a_cancelled_batch_cost_is_not_on_the_bill_of_who_asks_the_same_at_that_moment(shop: Shop) -> None:
    shop.begin(0.3)
    first = questions()[0]
    with transaction(shop.engine) as rows:
        assert shop.ledger.take(rows, first.call, "urgent", replace(first.buyer, tenant="urgent")) is True
        sent = str(rows.scalar(text("select batch_id from ai_batches")))
    wait_for(lambda: OpenAIBatches(shop.client).get(sent).ended, "the batch to end")
    shop.withdraw()
    assert shop.batches.cancel_abandoned() == 1
    assert sorted(use.tenant for use in shop.uses() if use.half_price) == ["", "T", "T", "T"]


def test_what_another_items_batch_is_asked_already_is_waited_for_and_what_was_left_unanswered_is_not_sent_again(
    shop: Shop,
) -> None:
    def asked() -> list[Question]:
        return questions(COUNT + 2, "things/2")

    shop.begin(0.3)
    shop.standins.admin("POST", "delays", {"openai.batch_work": 0})
    shop.standins.fault("openai", "missing_lines", operation="batch")
    for _ in range(3):
        with pytest.raises(InBatch, match="Another item"):
            shop.batches.fetch("things/2", "responses", asked, read)
    assert (len(shop.standins.calls("openai", "batches")), len(shop.answered())) == (2, 1)
    shop.fetch()
    shop.fetch("things/2", asked)
    assert (shop.bought_directly(asked), shop.left()) == (1, 0)
    assert (len(shop.standins.calls("openai", "batches")), len(set(shop.answered()))) == (2, COUNT + 1)
    assert len(shop.answered()) == COUNT + 1


@pytest.mark.parametrize("sent", [False, True])
def test_after_a_change_of_the_model_the_other_ones_answers_cost_half_as_well(shop: Shop, sent: bool) -> None:
    def of_other() -> list[Question]:
        return [
            replace(one, call=replace(one.call, model="other"), body=one.body | {"model": "other"}) for one in asked
        ]

    asked = questions()
    if sent:
        shop.begin(0.3)
    else:
        client = OpenAIClient("nobody", base_url=f"http://127.0.0.1:{free_port()}", policy=RetryPolicy(attempts=1))
        with pytest.raises(InBatch, match="could not be reached"):
            Shop(shop.engine, shop.standins, client).batches.fetch(ITEM, "responses", questions, read)
        client.close()
    shop.fetch(ask=of_other)
    assert (shop.bought_directly(of_other), shop.left()) == (0, 0)
    assert len(shop.standins.calls("openai", "batches")) == 1 + sent
    shop.fetch()
    assert shop.bought_directly() == 0, "and those of the first one again"
    assert len(shop.answered()) == 2 * COUNT


def test_questions_that_change_while_their_batch_is_under_way_are_not_sent_again_and_again(shop: Shop) -> None:
    def others() -> list[Question]:
        return questions(2 * COUNT)[COUNT:]

    shop.begin(0.3)
    shop.fetch(ask=others)
    assert (len(shop.standins.calls("openai", "batches")), shop.bought_directly(others)) == (1, COUNT)


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

    with serving(_proxy(shop.standins.openai_url, between, breaks_off=how == "breaks off")) as proxy:
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

    with serving(_proxy(shop.standins.openai_url, between)) as proxy:
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
    usual = [Question(one.call, one.body, one.buyer) for one in questions(9)][8]
    shop.buy(usual)  # 0.0006 USD
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
from imgpipe_orchestration_tests.billing.test_batches import ITEM, questions, read

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
    with serving(_proxy(shop.standins.openai_url, between)) as proxy, transaction(shop.engine) as rows:
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


def _proxy(
    url: str,
    between: Callable[[str, str, Callable[[], None]], None],
    rewrite: Callable[[bytes], bytes] = bytes,
    *,
    breaks_off: bool = False,
) -> Behaviour:
    """The stand-in behind `between`, with results as `rewrite` makes them. What that does not pass on, or raises a
    ConnectionError over, is answered with 500, or not at all."""

    def behave(handler: Any, number: int) -> None:
        headers = {name: value for name, value in handler.headers.items() if name.lower() != "host"}
        answers: list[requests.Response] = []

        def pass_on() -> None:
            answers.append(requests.request(handler.command, url + handler.path, headers=headers, data=handler.sent))

        try:
            between(handler.command, handler.path, pass_on)
        except ConnectionError:
            answers.clear()
        if not answers and breaks_off:
            handler.close_connection = True
        elif not answers:
            reply(handler, b"{}", 500)
        for answer in answers:
            content = rewrite(answer.content) if handler.path.endswith("/content") else answer.content
            reply(handler, content, answer.status_code, Content_Type=answer.headers["content-type"])

    return behave
