"""Buyers, a call and a shop to buy from."""

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from sqlalchemy import Connection, Engine, Row, text

from imgpipe_orchestration.billing import spending
from imgpipe_orchestration.billing.calls import Buyer, PaidCall, Purchase
from imgpipe_orchestration.billing.ledger import Ledger
from imgpipe_orchestration.partners.usage import Usage

ANNA = Buyer("media", "media/1", "user 1")
BERT = Buyer("media", "media/2", "user 2")
VISION = Usage(model="gpt-6-luna", input_tokens=1000, output_tokens=500)
VISION_COST = Decimal("0.00035")  # 1000 x 0.10 + 500 x 0.50 per million


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


def failing(error: Exception) -> Callable[[], Purchase]:
    """A purchase that comes to nothing."""

    def purchase() -> Purchase:
        raise error

    return purchase


@contextmanager
def under_way(ledger: Ledger, call: PaidCall, buyer: Buyer = ANNA) -> Iterator[Shop]:
    """A purchase in another thread, which the provider answers when the block ends."""
    asked, answer, shop = threading.Event(), threading.Event(), Shop()

    def purchase() -> Purchase:
        asked.set()
        answer.wait(90)
        return shop()

    with ThreadPoolExecutor(1) as pool:
        buying = pool.submit(ledger.buy, call, purchase, buyer=buyer)
        try:
            assert asked.wait(60)
            yield shop
        finally:
            answer.set()
        buying.result(60)


def uses(engine: Engine) -> list[Any]:
    with engine.connect() as connection:
        return list(connection.execute(text("select * from paid_call_uses order by id")))


def of_today(connection: Connection, by: Sequence[Any]) -> Sequence[Row[Any]]:
    """What was spent today, by some columns."""
    today = datetime.now(UTC).date()
    return spending.between(connection, today, today, by)
