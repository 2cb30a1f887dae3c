"""A ledger whose questions are asked in batches of the stand-in, and what stands between the two."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import requests
from sqlalchemy import Engine, text

from imgpipe_orchestration.billing.batches import HalfPrice, InBatch, Question
from imgpipe_orchestration.billing.calls import Buyer, PaidCall, Purchase
from imgpipe_orchestration.billing.ledger import Ledger
from imgpipe_orchestration.partners.openai import OpenAIClient
from imgpipe_orchestration.partners.openai_batches import OpenAIBatches
from imgpipe_orchestration.partners.usage import Usage
from imgpipe_orchestration.storage.claims import Claims, Item, Queue
from imgpipe_orchestration.storage.rows import transaction
from imgpipe_orchestration_tests.conftest import StandInAccess
from imgpipe_orchestration_tests.devstack.running import wait_for
from imgpipe_orchestration_tests.partners.wire import Behaviour, reply

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


def read(_: PaidCall, body: dict[str, Any]) -> Purchase:
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


def relay(
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
