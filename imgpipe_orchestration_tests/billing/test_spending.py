"""What was spent, read back from the journal."""

from decimal import Decimal

from sqlalchemy import Engine, text

from imgpipe_orchestration.billing import spending
from imgpipe_orchestration.billing.calls import Buyer, PaidCall, Purchase
from imgpipe_orchestration.billing.ledger import Ledger
from imgpipe_orchestration.partners.usage import Usage
from imgpipe_orchestration.storage import history
from imgpipe_orchestration_tests.billing.ledger.shop import of_today


def buy(
    engine: Engine,
    name: str,
    *,
    item: str = "1",
    pipeline: str = "media",
    model: str = "gpt-6-luna",
    answered_by: str = "",
) -> None:
    call = PaidCall.of("openai", "vision", model, inputs=[name])
    usage = Usage(model=answered_by or f"{model}-standin", input_tokens=1000, output_tokens=500)
    Ledger(engine).buy(call, lambda: Purchase(usage, value=name), buyer=Buyer(pipeline, item))


def test_uses_are_summed_by_what_is_asked_for(engine: Engine) -> None:
    for name, pipeline in (("a", "x"), ("a", "y"), ("b", "y")):
        buy(engine, name, pipeline=pipeline)
    with engine.connect() as connection:
        (total,) = of_today(connection, ["day"])
        by_pipeline = of_today(connection, ["pipeline"])
        (by_model,) = of_today(connection, ["provider", "model"])
    assert (total.bought, total.reused, total.cost_usd) == (2, 1, Decimal("0.0007"))
    assert (total.input_tokens, total.output_tokens, total.standin) == (2000, 1000, 2)
    assert {line.pipeline: (line.bought, line.reused) for line in by_pipeline} == {"x": (1, 0), "y": (1, 1)}
    assert (by_model.provider, by_model.model) == ("openai", "gpt-6-luna")


def test_a_sum_says_when_it_is_not_complete(engine: Engine) -> None:
    buy(engine, "a", item="7")
    buy(engine, "b", item="7", model="made-up")
    with engine.connect() as connection:
        (total,) = of_today(connection, ["day"])
        assert (total.cost_usd, total.unknown_cost) == (Decimal("0.00035"), 1)
        assert spending.of_item(connection, "media", "7") == (Decimal("0.00035"), 1)
        assert spending.of_item(connection, "media", "8") == (0, 0)


def test_an_items_stand_ins_are_those_that_answered_last(engine: Engine) -> None:
    buy(engine, "a", item="7")
    buy(engine, "a", item="8")
    with engine.connect() as connection:
        for item in ("7", "8"):  # the second one found the answer of the first
            assert spending.standins(connection, "media", item) == {"vision"}
    buy(engine, "b", item="7", answered_by="gpt-6-luna-2026-05-01")
    with engine.connect() as connection:
        assert spending.standins(connection, "media", "7") == set()
        assert spending.standins(connection, "media", "9") == set()


def test_old_uses_are_forgotten_but_their_answers_are_not(engine: Engine) -> None:
    buy(engine, "a")
    buy(engine, "b")
    with engine.begin() as connection:
        connection.execute(text("update paid_call_uses set at = at - interval '90 days' where id = 1"))
    assert history.purge(engine, 30, 30)["paid_call_uses"] == 1
    assert history.purge(engine, 30, 30)["paid_call_uses"] == 0
    buy(engine, "a")
    with engine.connect() as connection:
        (total,) = of_today(connection, ["day"])
        assert (total.bought, total.reused) == (2, 1), "nor are the sums"
