"""Half price: questions that go to the provider in a batch, whatever becomes of it and of the worker."""

import json
from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import text

from imgpipe_orchestration.billing.batches import InBatch, Question
from imgpipe_orchestration.billing.calls import PaidCall, Purchase
from imgpipe_orchestration.devstack.ports import free_port
from imgpipe_orchestration.errors import ImgpipeError, PartnerRefused, Planned
from imgpipe_orchestration.partners.openai import OpenAIClient
from imgpipe_orchestration.partners.openai_batches import OpenAIBatches
from imgpipe_orchestration.partners.retry import RetryPolicy
from imgpipe_orchestration.partners.usage import Usage, charged
from imgpipe_orchestration.storage.rows import transaction
from imgpipe_orchestration_tests.billing.half_price import COUNT, ITEM, Shop, questions, read, relay
from imgpipe_orchestration_tests.devstack.running import wait_for
from imgpipe_orchestration_tests.partners.wire import answering, serving


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

    with serving(relay(shop.standins.openai_url, lambda _, __, pass_on: pass_on(), rewrite)) as proxy:
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

    fetch_changed(shop, change)
    with answering(body, status) as server:
        client = OpenAIClient("k", base_url=server.url, policy=RetryPolicy(attempts=1))
        with pytest.raises(ImgpipeError) as direct:
            client.models()
        client.close()
    failed = [(use.outcome, use.cost_usd, use.error) for use in shop.uses() if use.error]
    assert failed == [("failed", None, direct.value.public)]


def test_an_answer_that_cannot_be_read_was_paid_for_and_does_no_harm_to_the_others(shop: Shop) -> None:
    bad = questions()[1].call.key

    def picky(_: PaidCall, body: dict[str, Any]) -> Purchase:
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
    def refusing(_: PaidCall, body: dict[str, Any]) -> Purchase:
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
