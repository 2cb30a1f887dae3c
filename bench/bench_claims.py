"""Claims with a thousand and with a million items waiting.

Two databases on one server, one small and one large, asked in turn: the same work on each, so that whatever else the
machine does hits both. The tables are never analysed and never vacuumed while we measure, and thousands of items have
gone through them before: the planner knows nothing and the heads of the indexes are full of dead rows.
"""

from __future__ import annotations

import argparse
import contextlib
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator

from running import bar, database, interleaved, running_postgres
from sqlalchemy import text

from imgpipe_orchestration.devstack.postgres import Postgres
from imgpipe_orchestration.storage.claims import Claims, Item, Queue
from imgpipe_orchestration.storage.rows import transaction

QUEUE = Queue("bench")
BATCH = 100
CHUNK = 50_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--large", type=int, default=1_000_000, help="items waiting in the large database")
    parser.add_argument("--rounds", type=int, default=15)
    arguments = parser.parse_args()
    with (
        running_postgres() as server,
        claims_of(server, "small") as small,
        claims_of(server, "large") as large,
        claims_of(server, "eight") as eight,
    ):
        measure(small, large, eight, arguments.large, arguments.rounds)


def measure(small: Claims, large: Claims, eight: Claims, many: int, rounds: int) -> None:
    few = 1000
    tens = fill(small, few), fill(large, many)
    print(f"{many:,} items enqueued at {many / tens[1]:,.0f} a second")
    for claims in (small, large):
        churn(claims, 20_000)

    work = interleaved(rounds, lambda: claim_and_finish(small), lambda: claim_and_finish(large))
    due = interleaved(rounds, lambda: repeated(20, due_partitions, small), lambda: repeated(20, due_partitions, large))
    counts = interleaved(rounds, lambda: repeated(20, Claims.counts, small), lambda: repeated(20, Claims.counts, large))
    sizes = small.counts()["bench"].waiting, large.counts()["bench"].waiting

    plain, counted = interleaved(rounds, lambda: uncounted(small), lambda: enqueue_claim_finish(small))

    paused = pause_everything(large, 100_000)
    after = interleaved(rounds, lambda: claim_and_finish(small), lambda: claim_and_finish(large))
    wrong, rate = eight_at_once(eight, 8000)

    print(f"waiting: {sizes[0]:,} and {sizes[1]:,}; {rounds} rounds, medians")
    print(f"claim and finish {BATCH} items: {1000 * work[0]:.1f} ms and {1000 * work[1]:.1f} ms")
    print(f"with {paused:,} items pausing in the large one: {1000 * after[0]:.1f} ms and {1000 * after[1]:.1f} ms")
    print(f"is anything due: {50 * due[0]:.2f} ms and {50 * due[1]:.2f} ms")
    print(f"counts of a status page: {50 * counts[0]:.2f} ms and {50 * counts[1]:.2f} ms")
    print(f"enqueue, claim and finish {BATCH} items: {1000 * counted:.1f} ms, without counting {1000 * plain:.1f} ms")
    print(f"eight claimers: {rate:,.0f} items claimed and finished a second")
    bar("claims_million_over_thousand", work[1] / work[0], 1.3)
    bar("claims_million_over_thousand_paused", after[1] / after[0], 1.3)
    bar("claims_eight_claimers_twice_or_missed", wrong, 0)
    bar("claims_due_million_over_thousand", due[1] / due[0], 1.3)
    bar("claims_counts_million_over_thousand", counts[1] / counts[0], 2)
    bar("claims_counted_over_uncounted", counted / plain, 1.25)


@contextlib.contextmanager
def claims_of(server: Postgres, name: str) -> Iterator[Claims]:
    """Claims over a fresh database whose statistics and dead rows nobody tends."""
    with database(server, name, pool_size=16) as engine:
        with transaction(engine) as connection:
            for table in ("work_items", "work_attempts", "work_counts", "work_turns", "work_served"):
                connection.execute(text(f"alter table {table} set (autovacuum_enabled = false)"))
        yield Claims(engine)


def fill(claims: Claims, number: int) -> float:
    """Enqueue items of a hundred tenants; returns the seconds it took. The first items go in while the tables are
    empty, so that a plan kept from then would show."""
    claim_and_finish(claims)
    started = time.perf_counter()
    for first in range(1, number + 1, CHUNK):
        with transaction(claims.engine) as connection:
            claims.enqueue(connection, QUEUE, [item(n) for n in range(first, min(first + CHUNK, number + 1))])
    return time.perf_counter() - started


def item(number: int) -> Item:
    return Item(number, tenant=f"tenant-{number % 100}")


def churn(claims: Claims, number: int) -> None:
    """Work `number` items off and put as many in."""
    for _ in range(number // 500):
        claim_and_finish(claims, 500)


_next = iter(range(10_000_000, 1_000_000_000))


def claim_and_finish(claims: Claims, number: int = BATCH) -> float:
    """Seconds to claim `number` items and finish each in a transaction of its own. As many are put in, unmeasured."""
    started = time.perf_counter()
    batch = claims.claim(QUEUE, "run", number)
    for claim in batch:
        with claims.fenced(claim) as connection:
            claims.finish(connection, QUEUE, claim)
    seconds = time.perf_counter() - started
    with transaction(claims.engine) as connection:
        claims.enqueue(connection, QUEUE, [item(next(_next)) for _ in batch])
    return seconds


def enqueue_claim_finish(claims: Claims) -> float:
    started = time.perf_counter()
    with transaction(claims.engine) as connection:
        claims.enqueue(connection, QUEUE, [item(next(_next)) for _ in range(BATCH)])
    for claim in claims.claim(QUEUE, "run", BATCH):
        with claims.fenced(claim) as connection:
            claims.finish(connection, QUEUE, claim)
    return time.perf_counter() - started


def due_partitions(claims: Claims) -> None:
    assert claims.due_partitions(QUEUE) == [""]


def repeated(times: int, call: Callable[[Claims], object], claims: Claims) -> float:
    started = time.perf_counter()
    for _ in range(times):
        call(claims)
    return time.perf_counter() - started


def pause_everything(claims: Claims, number: int) -> int:
    """Let items pause for an hour, as when a provider's quota has run out: at the head of the line."""
    with transaction(claims.engine) as connection:
        pause = """
            update work_items set due_at = now() + interval '1 hour' where queue = 'bench' and item_id in (
                select item_id from work_items where queue = 'bench' and state = 'waiting' order by turn limit :n)
        """
        return connection.execute(text(pause), {"n": number}).rowcount


def uncounted(claims: Claims) -> float:
    """The same work on the same table while nobody counts."""
    with transaction(claims.engine) as connection:
        connection.execute(text("alter table work_items disable trigger user"))
    seconds = enqueue_claim_finish(claims)
    with transaction(claims.engine) as connection:
        connection.execute(text("alter table work_items enable trigger user"))
    return seconds


def eight_at_once(claims: Claims, number: int) -> tuple[int, float]:
    """Eight claimers on one queue: items that were taken twice or never, and items a second."""
    fill(claims, number)
    taken: Counter[int] = Counter()
    lock = threading.Lock()

    def work(owner: str) -> None:
        misses = 0
        while misses < 3:
            batch = claims.claim(QUEUE, owner, 50)
            misses = 0 if batch else misses + 1
            for claim in batch:
                with claims.fenced(claim) as connection:
                    claims.finish(connection, QUEUE, claim)
            with lock:
                taken.update(claim.item_id for claim in batch)

    threads = [threading.Thread(target=work, args=(f"run-{n}",)) for n in range(8)]
    started = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds = time.perf_counter() - started
    twice = sum(1 for times in taken.values() if times > 1)
    return twice + number - len(taken), number / seconds


if __name__ == "__main__":
    main()
