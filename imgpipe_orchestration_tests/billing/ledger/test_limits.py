"""Budgets, pauses, and what becomes of calls that fail."""

import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace

import pytest
import tenacity
from sqlalchemy import Engine, text

from imgpipe_orchestration.billing import spending
from imgpipe_orchestration.billing.calls import PaidCall, Purchase
from imgpipe_orchestration.billing.ledger import Ledger
from imgpipe_orchestration.devstack.ports import free_port
from imgpipe_orchestration.devstack.postgres import Postgres
from imgpipe_orchestration.errors import (
    PartnerRefused,
    PartnerUnavailable,
    Retryable,
    SpendingPaused,
    UnreadableAnswer,
)
from imgpipe_orchestration.partners.usage import Usage
from imgpipe_orchestration.storage import migrations
from imgpipe_orchestration.storage.rows import connect
from imgpipe_orchestration_tests.billing.ledger.shop import (
    ANNA,
    BERT,
    VISION,
    VISION_COST,
    Shop,
    a_call,
    failing,
    of_today,
    under_way,
    uses,
)
from imgpipe_orchestration_tests.devstack.running import wait_for
from imgpipe_orchestration_tests.parts import ensure_database, running


def test_the_daily_budget_stops_spending_but_not_reuse(engine: Engine) -> None:
    ledger, shop = Ledger(engine, daily_budget_usd=0.0009), Shop()
    for number in range(2):
        ledger.buy(a_call(b"%d" % number), shop, buyer=ANNA)
    with pytest.raises(SpendingPaused, match="daily budget") as caught:
        ledger.buy(a_call(b"one too many"), shop, buyer=ANNA)
    assert shop.sold == 2
    assert caught.value.retry_after is not None
    assert 0 < caught.value.retry_after <= Ledger.pause  # for the budget may be raised
    assert not ledger.buy(a_call(b"0"), shop, buyer=BERT).bought


def test_an_answer_that_is_of_no_use_was_paid_for_and_counts(engine: Engine) -> None:
    ledger = Ledger(engine, daily_budget_usd=float(VISION_COST * 2))
    error = UnreadableAnswer("OpenAI sent an image that is cut off")
    error.usage = VISION
    for _ in range(2):
        with pytest.raises(UnreadableAnswer):
            ledger.buy(a_call(), failing(error), buyer=ANNA)
    with pytest.raises(SpendingPaused, match="daily budget"):
        ledger.buy(a_call(), Shop(), buyer=ANNA)
    with engine.connect() as connection:
        (total,) = of_today(connection, ["day"])
    assert (total.bought, total.failed, total.cost_usd) == (2, 2, VISION_COST * 2)
    assert (total.input_tokens, total.unknown_cost) == (2 * VISION.input_tokens, 0)


def test_an_answer_that_cannot_be_read_was_paid_for_with_an_unknown_sum(engine: Engine) -> None:
    """Whoever could not read it: the partner's client, or the transport below it."""
    unreadable = UnreadableAnswer("OpenAI answered more than the 33,554,432 bytes allowed")
    with pytest.raises(UnreadableAnswer):
        Ledger(engine).buy(a_call(), failing(unreadable), buyer=ANNA)
    assert [(use.outcome, use.cost_usd) for use in uses(engine)] == [("bought", None)]
    with engine.connect() as connection:
        (total,) = of_today(connection, ["day"])
    assert (total.bought, total.failed, total.unknown_cost) == (1, 1, 1)


def test_calls_in_flight_count_towards_the_budget(engine: Engine) -> None:
    ledger = Ledger(engine, daily_budget_usd=0.0009)
    ledger.buy(a_call(b"first"), Shop(), buyer=ANNA)
    with under_way(ledger, a_call(b"second")), pytest.raises(SpendingPaused):
        ledger.buy(a_call(b"third"), Shop(), buyer=ANNA)


def test_the_budget_holds_when_many_start_at_once_and_no_cost_is_known_yet(engine: Engine) -> None:
    """Room for five calls; sixteen threads, none of which has ever seen a price."""
    ledger = Ledger(engine, daily_budget_usd=float(VISION_COST * 5))
    together = threading.Barrier(16)
    shop = Shop()

    def slowly() -> Purchase:
        time.sleep(0.1)
        return shop()

    def refused(number: int) -> bool:
        with engine.connect():  # who connects first would be first
            together.wait(20)
        try:
            return not ledger.buy(a_call(b"%d" % number), slowly, buyer=ANNA).bought
        except SpendingPaused:
            return True

    with ThreadPoolExecutor(16) as pool:
        assert sum(pool.map(refused, range(16))) == 11
    assert shop.sold == 5


def test_a_model_without_a_price_is_bought_under_a_budget_and_said_so(
    engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    ledger = Ledger(engine, daily_budget_usd=1)
    shop = Shop(usage=Usage(model="made-up", input_tokens=5))
    call = PaidCall.of("openai", "vision", "made-up", inputs=["x"])
    assert ledger.buy(call, shop, buyer=ANNA).cost_usd is None
    assert "do not see a call of unknown cost" in caplog.text


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


def test_a_late_buyer_that_fails_does_not_reopen_the_call_of_who_took_over(engine: Engine) -> None:
    with ExitStack() as others:

        def late() -> Purchase:
            with engine.begin() as connection:
                connection.execute(text("update paid_calls set lease_until = now() - interval '1 hour'"))
            others.enter_context(under_way(Ledger(engine), a_call(), BERT))
            raise PartnerUnavailable("OpenAI failed (HTTP 500)")

        with pytest.raises(PartnerUnavailable):
            Ledger(engine).buy(a_call(), late, buyer=ANNA)
        with pytest.raises(Retryable, match="still waiting"):
            Ledger(engine, patience=0).buy(a_call(), Shop(), buyer=ANNA)
    assert [use.outcome for use in uses(engine)].count("bought") == 1


def test_a_used_up_quota_pauses_the_provider_and_no_other(engine: Engine) -> None:
    ledger, shop = Ledger(engine, pause=600), Shop()
    with pytest.raises(SpendingPaused):
        ledger.buy(a_call(b"a"), failing(SpendingPaused("OpenAI's quota is used up")), buyer=ANNA)
    with pytest.raises(SpendingPaused, match="quota is used up"):
        ledger.buy(a_call(b"b"), shop, buyer=ANNA)
    assert shop.sold == 0
    google = PaidCall.of("google", "annotate", "vision-v1", inputs=[b"a"])
    assert ledger.buy(google, shop, buyer=ANNA).bought
    with engine.begin() as connection:
        paused = [(pause.provider, pause.reason) for pause in spending.pauses(connection)]
        assert paused == [("openai", "OpenAI's quota is used up")]
        connection.execute(text("update spending_pauses set until = clock_timestamp()"))
        assert spending.pauses(connection) == []
    wait_for(lambda: _buyable(ledger, shop), "the pause to be over")


def _buyable(ledger: Ledger, shop: Shop) -> bool:
    try:
        return ledger.buy(a_call(b"b"), shop, buyer=ANNA).bought
    except SpendingPaused:
        return False


@pytest.mark.slow
def test_an_answer_that_was_paid_for_is_written_down_when_the_database_comes_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    passed, looks = 0.0, 0

    def clock() -> float:
        nonlocal looks
        looks += 1
        return time.monotonic() + passed

    monkeypatch.setattr(tenacity, "time", SimpleNamespace(monotonic=clock))
    # Not below pytest's own folder: each pytest that starts closes that one to PostgreSQL's user, and this server
    # starts twice.
    with tempfile.TemporaryDirectory() as folder, running(Postgres(Path(folder) / "data", free_port())) as server:
        engine = connect(ensure_database(server, "imgpipe"))
        migrations.upgrade(engine)
        asked, away = threading.Event(), threading.Event()
        answers = []

        def purchase() -> Purchase:
            asked.set()
            assert away.wait(60)
            return Purchase(VISION, value="paid for")

        buyer = threading.Thread(target=lambda: answers.append(Ledger(engine).buy(a_call(), purchase, buyer=ANNA)))
        buyer.start()
        assert asked.wait(60)
        server.kill()
        away.set()
        for later in (0.0, 1800.0):
            passed, tried = later, looks + 2
            wait_for(lambda: looks > tried or not buyer.is_alive(), "tries in vain", 20)  # noqa: B023
        server.start()  # from the main thread, with which it would end otherwise
        server.wait_until_ready()  # beside a session of the killed one it does not start at once
        buyer.join(90)
        assert [answer.value for answer in answers] == ["paid for"]
        assert [use.outcome for use in uses(engine)] == ["bought"]
        found = Ledger(engine).buy(a_call(), Shop(), buyer=BERT)
        assert (found.bought, found.value) == (False, "paid for")
        engine.dispose()


@pytest.mark.parametrize(("status", "others"), [(302, False), (401, False), (402, False), (403, True), (404, True)])
def test_what_is_not_about_the_item_pauses_whatever_it_concerns(engine: Engine, status: int, others: bool) -> None:
    ledger, shop = Ledger(engine, pause=60), Shop()
    refused = PartnerRefused("OpenAI does not accept this", partner_status=status)
    with pytest.raises(SpendingPaused, match="does not accept this: what needs it waits until that is fixed") as caught:
        ledger.buy(a_call(b"a"), failing(refused), buyer=ANNA)
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
