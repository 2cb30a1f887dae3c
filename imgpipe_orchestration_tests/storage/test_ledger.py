"""The journal of paid calls: one purchase an answer, whatever dies and whoever else asks."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, text

from imgpipe_orchestration.devstack.ports import free_port
from imgpipe_orchestration.devstack.postgres import Postgres
from imgpipe_orchestration.errors import PartnerRefused, PartnerUnavailable, Retryable, SpendingPaused
from imgpipe_orchestration.partners.usage import Usage
from imgpipe_orchestration.storage import migrations
from imgpipe_orchestration.storage.ledger import Buyer, Ledger, Limits, PaidCall, Purchase
from imgpipe_orchestration.storage.rows import connect

ANNA = Buyer("media", "media/1", "user 1")
BERT = Buyer("media", "media/2", "user 2")
VISION = Usage(model="gpt-6-luna", input_tokens=1000, output_tokens=500)
VISION_COST = Decimal("0.00035")  # 1000 x 0.10 + 500 x 0.50 per million


@pytest.fixture
def engine(postgres_url: str) -> Iterator[Engine]:
    engine = connect(postgres_url)
    migrations.upgrade(engine)
    yield engine
    engine.dispose()


def a_call(image: bytes = b"image", **parameters: Any) -> PaidCall:
    return PaidCall.of("openai", "vision", "gpt-6-luna", inputs=[image, "what is it?"], parameters=parameters)


class Shop:
    """Counts what is bought from it."""

    def __init__(self, value: Any = None, usage: Usage = VISION) -> None:
        self.value = {"style": "oil"} if value is None else value
        self.usage = usage
        self.sold = 0

    def __call__(self) -> Purchase:
        self.sold += 1
        return Purchase(self.usage, value=self.value)


def uses(engine: Engine) -> list[Any]:
    with engine.connect() as connection:
        return list(connection.execute(text("select * from paid_call_uses order by id")))


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
    found = ledger.find(call)
    assert found is not None
    assert (found.object_key, found.value) == ("answers/face.png", None)
    assert found.cost_usd == Decimal("0.0305")


def test_an_answer_with_characters_that_postgresql_refuses_is_not_lost(engine: Engine) -> None:
    value = {"text": "OPEN\0 24 h \ud83c", "score": float("nan")}
    answer = Ledger(engine).buy(a_call(), Shop(value=value), buyer=ANNA)
    assert answer.value == {"text": "OPEN 24 h \ufffd", "score": None}


def test_the_cost_of_an_unknown_model_is_unknown_and_not_zero(engine: Engine) -> None:
    answer = Ledger(engine).buy(a_call(), Shop(usage=Usage(model="new-model", input_tokens=5)), buyer=ANNA)
    assert answer.cost_usd is None
    assert uses(engine)[0].cost_usd is None


def test_a_failed_call_is_recorded_and_can_be_bought_again_at_once(engine: Engine) -> None:
    ledger, shop = Ledger(engine), Shop()

    def refuse() -> Purchase:
        raise PartnerRefused("OpenAI refused for its content policy")

    with pytest.raises(PartnerRefused):
        ledger.buy(a_call(), refuse, buyer=ANNA)
    assert ledger.buy(a_call(), shop, buyer=ANNA).bought
    assert [(use.outcome, use.error) for use in uses(engine)] == [
        ("failed", "OpenAI refused for its content policy"),
        ("bought", None),
    ]


def test_many_threads_that_want_one_answer_buy_it_once(engine: Engine) -> None:
    ledger = Ledger(engine)
    shop = Shop()
    together = threading.Barrier(8)
    answers = []

    def slow_shop() -> Purchase:
        time.sleep(0.2)
        return shop()

    def want() -> None:
        together.wait(10)
        answers.append(ledger.buy(a_call(), slow_shop, buyer=ANNA))

    threads = [threading.Thread(target=want) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert shop.sold == 1
    assert sorted(answer.bought for answer in answers) == [False] * 7 + [True]


def test_waiting_for_another_buyer_ends_with_a_retryable_error(engine: Engine) -> None:
    release = threading.Event()
    started = threading.Event()

    def stuck() -> Purchase:
        started.set()
        release.wait(30)
        return Shop()()

    thread = threading.Thread(target=lambda: Ledger(engine).buy(a_call(), stuck, buyer=ANNA))
    thread.start()
    try:
        assert started.wait(10)
        with pytest.raises(Retryable, match="Another worker"):
            Ledger(engine, Limits(patience=0.2)).buy(a_call(), Shop(), buyer=BERT)
    finally:
        release.set()
        thread.join(10)


def test_a_lease_is_renewed_while_the_provider_takes_its_time(engine: Engine) -> None:
    limits = Limits(lease=0.6)
    started = threading.Event()
    slow, other = Shop(), Shop()

    def slowly() -> Purchase:
        started.set()
        time.sleep(2)
        return slow()

    thread = threading.Thread(target=lambda: Ledger(engine, limits).buy(a_call(), slowly, buyer=ANNA))
    thread.start()
    assert started.wait(10)
    answer = Ledger(engine, limits).buy(a_call(), other, buyer=BERT)
    thread.join(10)
    assert (slow.sold, other.sold, answer.bought) == (1, 0, False)


# --- processes -----------------------------------------------------------------------------------------------------


BUYER = """
import sys, time
from imgpipe_orchestration.partners.usage import Usage
from imgpipe_orchestration.storage.ledger import Buyer, Ledger, Limits, PaidCall, Purchase
from imgpipe_orchestration.storage.rows import connect

url, log, seconds = sys.argv[1:]

def purchase():
    with open(log, "a") as file:
        file.write("bought\\n")
    time.sleep(float(seconds))
    return Purchase(Usage("gpt-6-luna", 1000, 500), value="the answer")

call = PaidCall.of("openai", "vision", "gpt-6-luna", inputs=[b"image", "what is it?"])
Ledger(connect(url), Limits(lease=1)).buy(call, purchase, buyer=Buyer("media", "media/1"))
"""
"""Another process that wants the answer to `a_call()`."""


@contextmanager
def buyer_process(url: str, log: Path, seconds: float) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen([sys.executable, "-c", BUYER, url, str(log), str(seconds)])
    try:
        yield process
    finally:
        process.kill()
        process.wait(10)


def _wait_for(condition: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition was not met in time"
        time.sleep(0.02)


def test_two_processes_that_want_one_answer_buy_it_once(engine: Engine, postgres_url: str, tmp_path: Path) -> None:
    log = tmp_path / "purchases"
    with buyer_process(postgres_url, log, 0.5) as one, buyer_process(postgres_url, log, 0.5) as other:
        assert (one.wait(60), other.wait(60)) == (0, 0)
    assert len(log.read_text().splitlines()) == 1
    assert sorted(use.outcome for use in uses(engine)) == ["bought", "reused"]


def _killed_while_it_asks(url: str, log: Path) -> None:
    with buyer_process(url, log, 600) as process:
        _wait_for(log.exists)
        process.kill()
        process.wait(10)


def test_a_buyer_killed_between_start_and_commit_costs_one_lease_and_shows_as_lost(
    engine: Engine, postgres_url: str, tmp_path: Path
) -> None:
    _killed_while_it_asks(postgres_url, tmp_path / "purchases")
    began = time.monotonic()
    answer = Ledger(engine, Limits(lease=1)).buy(a_call(), Shop(), buyer=BERT)
    assert answer.bought
    assert time.monotonic() - began < 20, "one lease, not the patience of another buyer"
    assert [use.outcome for use in uses(engine)] == ["lost", "bought"]


def test_what_a_killed_buyer_had_stored_is_recovered_and_not_bought_again(
    engine: Engine, postgres_url: str, tmp_path: Path
) -> None:
    _killed_while_it_asks(postgres_url, tmp_path / "purchases")
    shop = Shop()
    answer = Ledger(engine, Limits(lease=1)).buy(
        a_call(), shop, buyer=BERT, recover=lambda: Purchase(VISION, object_key="stored/before/the/kill.png")
    )
    assert shop.sold == 0
    assert answer.object_key == "stored/before/the/kill.png"


# --- money ---------------------------------------------------------------------------------------------------------


def test_the_daily_budget_stops_spending_but_not_reuse(engine: Engine) -> None:
    ledger, shop = Ledger(engine, Limits(daily_budget_usd=0.0009)), Shop()
    for number in range(2):
        ledger.buy(a_call(b"%d" % number), shop, buyer=ANNA)
    with pytest.raises(SpendingPaused, match="daily budget") as caught:
        ledger.buy(a_call(b"one too many"), shop, buyer=ANNA)
    assert shop.sold == 2
    assert caught.value.retry_after is not None
    assert 0 < caught.value.retry_after <= 86400
    assert not ledger.buy(a_call(b"0"), shop, buyer=BERT).bought


def test_calls_in_flight_count_towards_the_budget(engine: Engine) -> None:
    ledger = Ledger(engine, Limits(daily_budget_usd=0.0009))
    ledger.buy(a_call(b"first"), Shop(), buyer=ANNA)
    entered, release = threading.Event(), threading.Event()

    def held() -> Purchase:
        entered.set()
        release.wait(30)
        return Shop()()

    thread = threading.Thread(target=lambda: ledger.buy(a_call(b"second"), held, buyer=ANNA))
    thread.start()
    try:
        assert entered.wait(10)
        with pytest.raises(SpendingPaused):
            ledger.buy(a_call(b"third"), Shop(), buyer=ANNA)
    finally:
        release.set()
        thread.join(10)


def test_the_budget_holds_when_many_start_at_once_and_no_cost_is_known_yet(engine: Engine) -> None:
    """Room for five calls; sixteen threads, none of which has ever seen a price."""
    ledger = Ledger(engine, Limits(daily_budget_usd=float(VISION_COST * 5)))
    together = threading.Barrier(16)
    shop, refused = Shop(), []

    def slowly() -> Purchase:
        time.sleep(0.1)
        return shop()

    def want(number: int) -> None:
        together.wait(20)
        try:
            ledger.buy(a_call(b"%d" % number), slowly, buyer=ANNA)
        except SpendingPaused:
            refused.append(number)

    threads = [threading.Thread(target=want, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert (shop.sold, len(refused)) == (5, 11)


def test_a_model_without_a_price_is_bought_under_a_budget_and_said_so(
    engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    ledger = Ledger(engine, Limits(daily_budget_usd=1))
    shop = Shop(usage=Usage(model="made-up", input_tokens=5))
    call = PaidCall.of("openai", "vision", "made-up", inputs=["x"])
    assert ledger.buy(call, shop, buyer=ANNA).cost_usd is None
    assert "does not see a model without a price" in caplog.text


def test_of_two_buyers_the_first_to_commit_is_believed_by_both(engine: Engine) -> None:
    """The slow one lost its lease, say because its machine slept; its money is on record all the same."""
    first, second = Shop(value="first"), Shop(value="second")

    def slow() -> Purchase:
        with engine.begin() as connection:
            connection.execute(text("update paid_calls set lease_until = now() - interval '1 hour'"))
        assert Ledger(engine).buy(a_call(), first, buyer=BERT).value == "first"
        return second()

    assert Ledger(engine).buy(a_call(), slow, buyer=ANNA).value == "first"
    assert [use.outcome for use in uses(engine)] == ["lost", "bought", "bought"]


def test_yesterdays_spending_does_not_count(engine: Engine) -> None:
    ledger, shop = Ledger(engine, Limits(daily_budget_usd=0.0005)), Shop()
    ledger.buy(a_call(b"a"), shop, buyer=ANNA)
    with engine.begin() as connection:
        connection.execute(text("update paid_call_uses set at = at - interval '1 day'"))
    assert ledger.buy(a_call(b"b"), shop, buyer=ANNA).bought


def test_a_used_up_quota_pauses_the_provider_and_no_other(engine: Engine) -> None:
    ledger, shop = Ledger(engine, Limits(pause=1)), Shop()

    def broke() -> Purchase:
        raise SpendingPaused("OpenAI's quota is used up")

    with pytest.raises(SpendingPaused):
        ledger.buy(a_call(b"a"), broke, buyer=ANNA)
    with pytest.raises(SpendingPaused, match="quota is used up"):
        ledger.buy(a_call(b"b"), shop, buyer=ANNA)
    assert shop.sold == 0
    google = PaidCall.of("google", "annotate", "vision-v1", inputs=[b"a"])
    assert ledger.buy(google, shop, buyer=ANNA).bought
    _wait_for(lambda: _buyable(ledger, shop))


def _buyable(ledger: Ledger, shop: Shop) -> bool:
    try:
        return ledger.buy(a_call(b"b"), shop, buyer=ANNA).bought
    except SpendingPaused:
        return False


def test_a_bug_in_the_purchase_reopens_the_call_too(engine: Engine) -> None:
    ledger = Ledger(engine)

    def broken() -> Purchase:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        ledger.buy(a_call(), broken, buyer=ANNA)
    assert ledger.buy(a_call(), Shop(), buyer=ANNA).bought


def test_an_unavailable_provider_leaves_the_call_open(engine: Engine) -> None:
    ledger = Ledger(engine)

    def away() -> Purchase:
        raise PartnerUnavailable("OpenAI failed (HTTP 500)")

    with pytest.raises(PartnerUnavailable):
        ledger.buy(a_call(), away, buyer=ANNA)
    assert ledger.find(a_call()) is None


def test_an_answer_that_was_paid_for_is_written_down_when_the_database_comes_back() -> None:
    # Not below pytest's own folder: each pytest that starts closes that one to PostgreSQL's user, and this server
    # starts twice.
    with tempfile.TemporaryDirectory() as folder, Postgres(Path(folder) / "data", free_port()) as server:
        engine = connect(server.ensure_database("imgpipe"))
        migrations.upgrade(engine)
        asked, away = threading.Event(), threading.Event()
        answers = []

        def purchase() -> Purchase:
            asked.set()
            assert away.wait(10)
            return Purchase(VISION, value="paid for")

        buyer = threading.Thread(target=lambda: answers.append(Ledger(engine).buy(a_call(), purchase, buyer=ANNA)))
        buyer.start()
        assert asked.wait(10)
        server.kill()
        away.set()
        time.sleep(0.5)
        server.start()  # from the main thread, with which it would end otherwise
        buyer.join(30)
        assert [answer.value for answer in answers] == ["paid for"]
        found = Ledger(engine).find(a_call())
        assert found is not None
        assert found.value == "paid for"
        assert [use.outcome for use in uses(engine)] == ["bought"]
        engine.dispose()


@pytest.mark.parametrize(("status", "others"), [(401, False), (403, True), (404, True)])
def test_a_credential_or_model_that_is_not_accepted_pauses_what_it_concerns(
    engine: Engine, status: int, others: bool
) -> None:
    ledger, shop = Ledger(engine, Limits(pause=60)), Shop()

    def refused() -> Purchase:
        raise PartnerRefused("OpenAI does not accept this", partner_status=status)

    with pytest.raises(
        SpendingPaused, match="does not accept this: what needs it waits until that is mended"
    ) as caught:
        ledger.buy(a_call(b"a"), refused, buyer=ANNA)
    assert not caught.value.spends_attempt
    with pytest.raises(SpendingPaused, match="does not accept this"):
        ledger.buy(a_call(b"b"), shop, buyer=ANNA)
    assert shop.sold == 0
    call = a_call(b"b")
    another = PaidCall.of(call.provider, call.operation, "another-model", inputs=[b"b"])
    if others:
        assert ledger.buy(another, shop, buyer=ANNA).bought
    else:
        with pytest.raises(SpendingPaused):
            ledger.buy(another, shop, buyer=ANNA)
