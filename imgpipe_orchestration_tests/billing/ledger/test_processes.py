"""Buyers in other processes, and buyers that are killed."""

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import Engine, text

from imgpipe_orchestration.billing.ledger import Ledger
from imgpipe_orchestration.storage import deletions, history
from imgpipe_orchestration_tests.billing.ledger.shop import BERT, Shop, a_call, uses
from imgpipe_orchestration_tests.devstack.running import wait_for

BUYER = """
import sys, time
from imgpipe_orchestration.partners.usage import Usage
from imgpipe_orchestration.billing.calls import Buyer, PaidCall, Purchase
from imgpipe_orchestration.billing.ledger import Ledger
from imgpipe_orchestration.storage.rows import connect

url, log, seconds, lease = sys.argv[1:]

def purchase():
    with open(log, "a") as file:
        file.write("bought\\n")
    time.sleep(float(seconds))
    return Purchase(Usage("gpt-6-luna", 1000, 500), value="the answer")

call = PaidCall.of("openai", "vision", "gpt-6-luna", inputs=[b"image", "what is it?"])
Ledger(connect(url), lease=float(lease)).buy(call, purchase, buyer=Buyer("media", "media/1"))
"""
"""Another process that wants the answer to `a_call()`."""


@contextmanager
def buyer_process(url: str, log: Path, seconds: float, lease: float = 30.0) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen([sys.executable, "-c", BUYER, url, str(log), str(seconds), str(lease)])
    try:
        yield process
    finally:
        process.kill()
        process.wait(10)


def test_two_processes_that_want_one_answer_buy_it_once(engine: Engine, postgres_url: str, tmp_path: Path) -> None:
    log = tmp_path / "purchases"
    with buyer_process(postgres_url, log, 0.5) as one, buyer_process(postgres_url, log, 0.5) as other:
        assert (one.wait(60), other.wait(60)) == (0, 0)
    assert len(log.read_text().splitlines()) == 1
    assert sorted(use.outcome for use in uses(engine)) == ["bought", "reused"]


def _killed_while_it_asks(url: str, log: Path) -> None:
    with buyer_process(url, log, 600, lease=1) as process:
        wait_for(log.exists, "the call to be under way")
        process.kill()
        process.wait(10)


def test_a_buyer_killed_between_start_and_commit_costs_one_lease_and_shows_as_lost(
    engine: Engine, postgres_url: str, tmp_path: Path
) -> None:
    _killed_while_it_asks(postgres_url, tmp_path / "purchases")
    began = time.monotonic()
    answer = Ledger(engine, lease=1).buy(a_call(), Shop(), buyer=BERT)
    assert answer.bought
    assert time.monotonic() - began < 60, "one lease, not the patience of another buyer"
    assert [use.outcome for use in uses(engine)] == ["lost", "bought"]


def test_a_call_that_nobody_makes_again_is_lost_after_a_day(engine: Engine, postgres_url: str, tmp_path: Path) -> None:
    _killed_while_it_asks(postgres_url, tmp_path / "purchases")
    for hours, lost in ((23, 0), (25, 1), (25, 0)):
        with engine.begin() as connection:
            connection.execute(text(f"update paid_calls set lease_until = now() - interval '{hours} hours'"))
        assert history.purge(engine, 30, 400)["lost_calls"] == lost
    assert Ledger(engine).buy(a_call(), Shop(), buyer=BERT).bought
    assert [use.outcome for use in uses(engine)] == ["lost", "bought"]
    with engine.begin() as connection:
        deletions.forget_answers(connection, "media", [BERT.item])
        assert not connection.execute(text("select from paid_calls")).all(), "only BERT has the answer"
