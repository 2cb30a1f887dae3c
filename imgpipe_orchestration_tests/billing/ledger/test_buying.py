"""One purchase an answer, whoever else asks."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import Engine, text

from imgpipe_orchestration.billing.calls import PaidCall, Purchase
from imgpipe_orchestration.billing.ledger import Ledger
from imgpipe_orchestration.errors import ImgpipeError, PartnerRefused, PartnerUnavailable, Retryable
from imgpipe_orchestration.partners.usage import Usage
from imgpipe_orchestration_tests.billing.ledger.shop import (
    ANNA,
    BERT,
    VISION,
    VISION_COST,
    Shop,
    a_call,
    failing,
    under_way,
    uses,
)
from imgpipe_orchestration_tests.devstack.running import wait_for


def test_a_committed_answer_is_reused_and_costs_nothing_more(engine: Engine) -> None:
    ledger, shop = Ledger(engine), Shop()
    first = ledger.buy(a_call(), shop, buyer=ANNA)
    second = ledger.buy(a_call(), shop, buyer=BERT)
    assert shop.sold == 1
    assert (first.bought, second.bought) == (True, False)
    assert first.value == second.value == {"style": "oil"}
    assert second.usage == VISION
    assert first.cost_usd == second.cost_usd == VISION_COST
    assert [(use.outcome, use.item, use.tenant, use.cost_usd) for use in uses(engine)] == [
        ("bought", "media/1", "user 1", VISION_COST),
        ("reused", "media/2", "user 2", None),
    ]


def test_another_image_another_parameter_and_another_model_are_other_calls(engine: Engine) -> None:
    ledger, shop = Ledger(engine), Shop()
    ledger.buy(a_call(), shop, buyer=ANNA)
    ledger.buy(a_call(b"another"), shop, buyer=ANNA)
    ledger.buy(a_call(detail="high"), shop, buyer=ANNA)
    ledger.buy(PaidCall.of("openai", "vision", "gpt-6-sol", inputs=[b"image"]), shop, buyer=ANNA)
    assert shop.sold == 4


def test_inputs_that_join_to_the_same_bytes_are_different() -> None:
    one = PaidCall.of("openai", "vision", "m", inputs=[b"ab", b"c"])
    other = PaidCall.of("openai", "vision", "m", inputs=[b"a", b"bc"])
    assert one.key != other.key


def test_the_order_of_parameters_does_not_matter() -> None:
    assert a_call(x=1, y=2).key == a_call(y=2, x=1).key


def test_a_binary_answer_is_kept_as_the_key_of_its_object(engine: Engine) -> None:
    ledger = Ledger(engine)
    usage = Usage(model="gpt-image-2.5-flare", input_tokens=100, output_tokens=1000)
    call = PaidCall.of("openai", "generate", "gpt-image-2.5-flare", inputs=["a face"])
    ledger.buy(call, lambda: Purchase(usage, object_key="answers/face.png"), buyer=ANNA)
    found = ledger.buy(call, Shop(), buyer=BERT)
    assert (found.bought, found.object_key, found.value) == (False, "answers/face.png", None)
    assert found.cost_usd == Decimal("0.0305")


def test_an_answer_with_characters_that_postgresql_refuses_is_not_lost(engine: Engine) -> None:
    value = {"text": "OPEN\0 24 h \ud83c", "score": float("nan")}
    answer = Ledger(engine).buy(a_call(), Shop(value=value), buyer=ANNA)
    assert answer.value == {"text": "OPEN 24 h \ufffd", "score": None}


@pytest.mark.parametrize("error", [PartnerRefused("refused for its policy"), PartnerUnavailable("failed (HTTP 500)")])
def test_a_failed_call_is_recorded_and_can_be_bought_again_at_once(engine: Engine, error: ImgpipeError) -> None:
    ledger, shop = Ledger(engine), Shop()
    with pytest.raises(type(error)):
        ledger.buy(a_call(), failing(error), buyer=ANNA)
    assert ledger.buy(a_call(), shop, buyer=ANNA).bought
    assert [(use.outcome, use.error) for use in uses(engine)] == [
        ("failed", error.public),
        ("bought", None),
    ]


def test_many_threads_that_want_one_answer_buy_it_once(engine: Engine) -> None:
    ledger = Ledger(engine)
    shop = Shop()
    together = threading.Barrier(8)

    def slow_shop() -> Purchase:
        time.sleep(0.2)
        return shop()

    def want(_: int) -> bool:
        together.wait(60)
        return ledger.buy(a_call(), slow_shop, buyer=ANNA).bought

    with ThreadPoolExecutor(8) as pool:
        bought = sorted(pool.map(want, range(8)))
    assert shop.sold == 1
    assert bought == [False] * 7 + [True]


def test_waiting_for_another_buyer_ends_with_a_retryable_error(engine: Engine) -> None:
    with under_way(Ledger(engine), a_call()), pytest.raises(Retryable, match="Another worker"):
        Ledger(engine, patience=0.2).buy(a_call(), Shop(), buyer=BERT)


def test_a_lease_is_renewed_while_the_provider_takes_its_time(engine: Engine) -> None:
    def until() -> Any:
        with engine.connect() as connection:
            return connection.scalar(text("select lease_until from paid_calls"))

    other = Shop()
    with under_way(Ledger(engine, lease=9), a_call()) as slow:
        first = until()
        wait_for(lambda: until() > first, "the lease to be renewed", 30)
        with pytest.raises(Retryable, match="Another worker"):
            Ledger(engine, patience=0).buy(a_call(), other, buyer=BERT)
    assert not Ledger(engine).buy(a_call(), other, buyer=BERT).bought
    assert (slow.sold, other.sold) == (1, 0)
