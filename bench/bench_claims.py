"""Claims with a thousand and with a million items waiting.

Two databases on one server, one small and one large, asked in turn: the same work on each, so that whatever else the
machine does hits both. The tables are never analysed and never vacuumed while we measure, and thousands of items have
gone through them before: the planner knows nothing and the heads of the indexes are full of dead rows.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from running import bar, interleaved, options, servers, services
from sqlalchemy import text

from imgpipe_orchestration.devstack.postgres import Postgres
from imgpipe_orchestration.storage.claims import Claims, Item, Queue
from imgpipe_orchestration.storage.rows import transaction

QUEUE = Queue("bench")
BATCH = 100
CHUNK = 50_000
_new = iter(range(10_000_000, 1_000_000_000))


def main() -> None:
    arguments = options(__doc__, large=1_000_000, rounds=15)
    with (
        servers(durable=False) as (postgres, _),
        claims_of(postgres, "small") as small,
        claims_of(postgres, "large") as large,
    ):
        fill(small, 1000)
        fill(large, arguments.large)
        for claims in (small, large):
            for _ in range(40):
                claim_and_finish(claims, 500)
        compare = partial(interleaved, arguments.rounds, partial(claim_and_finish, small))
        work = compare(partial(claim_and_finish, large))
        pause_the_first(large, arguments.large // 10)
        paused = compare(partial(claim_and_finish, large))
    print(f"claim and finish {BATCH} items: {1000 * work[0]:.1f} ms and {1000 * work[1]:.1f} ms")
    bar("claims_million_over_thousand", work[1] / work[0], 1.3)
    bar("claims_million_over_thousand_paused", paused[1] / paused[0], 1.3)


@contextmanager
def claims_of(postgres: Postgres, name: str) -> Iterator[Claims]:
    """Claims over a fresh database whose statistics and dead rows nobody tends."""
    with services(postgres, None, name) as made:
        with transaction(made.engine) as connection:
            for table in ("work_items", "work_attempts", "work_counts", "work_turns", "work_served"):
                connection.execute(text(f"alter table {table} set (autovacuum_enabled = false)"))
        yield made.claims


def fill(claims: Claims, number: int) -> None:
    """Enqueue items of a hundred tenants, of which the first is claimed: a plan kept from an empty table would show."""
    for first in range(1, number + 1, CHUNK):
        with transaction(claims.engine) as connection:
            claims.enqueue(connection, QUEUE, [item(n) for n in range(first, min(first + CHUNK, number + 1))])
        claim_and_finish(claims, 1)


def item(number: int) -> Item:
    return Item(number, tenant=f"tenant-{number % 100}")


def claim_and_finish(claims: Claims, number: int = BATCH) -> float:
    """Seconds to claim `number` items and finish each in a transaction of its own. As many are put in, unmeasured."""
    started = time.perf_counter()
    batch = claims.claim(QUEUE, "run", number)
    for claim in batch:
        with claims.fenced(claim) as connection:
            claims.finish(connection, QUEUE, claim)
    seconds = time.perf_counter() - started
    with transaction(claims.engine) as connection:
        claims.enqueue(connection, QUEUE, [item(next(_new)) for _ in batch])
    return seconds


def pause_the_first(claims: Claims, number: int) -> None:
    """Let items at the head of the line pause for an hour, as when a provider's quota has run out."""
    pause = """
        update work_items set due_at = now() + interval '1 hour' where queue = 'bench' and item_id in (
            select item_id from work_items where queue = 'bench' and state = 'waiting' order by turn limit :n)
    """
    with transaction(claims.engine) as connection:
        connection.execute(text(pause), {"n": number})


if __name__ == "__main__":
    main()
