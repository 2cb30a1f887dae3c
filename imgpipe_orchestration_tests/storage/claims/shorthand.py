"""Shorthand for the tests of the queues: put items in, end claims, look at a row, let time pass."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import text

from imgpipe_orchestration.errors import ImgpipeError
from imgpipe_orchestration.storage.claims import Claim, Claims, Item, Queue, State
from imgpipe_orchestration.storage.rows import transaction

QUEUE = Queue("listings", max_attempts=3)


def put(
    claims: Claims, *ids: int, tenant: str = "", partition: str = "", delay: float = 0, queue: Queue = QUEUE
) -> int:
    with transaction(claims.engine) as connection:
        return claims.enqueue(connection, queue, [Item(n, tenant, partition) for n in ids], delay=delay)


def finish(claims: Claims, claim: Claim, queue: Queue = QUEUE) -> None:
    with claims.fenced(claim) as connection:
        claims.finish(connection, queue, claim)


def fail(claims: Claims, claim: Claim, error: ImgpipeError, queue: Queue = QUEUE) -> State:
    with claims.fenced(claim) as connection:
        return claims.failed(connection, queue, claim, error)


def row(claims: Claims, item_id: int) -> Any:
    with transaction(claims.engine) as connection:
        due_in = "extract(epoch from due_at - now())::float8 as due_in"
        query = text(f"select *, {due_in} from work_items where item_id = :id")
        return connection.execute(query, {"id": item_id}).one()


def time_passes(claims: Claims, seconds: float = 100_000) -> None:
    """Every moment in the table comes `seconds` earlier: what was to happen by then is due."""
    with transaction(claims.engine) as connection:
        earlier = text("update work_items set due_at = due_at - make_interval(secs => :s) where due_at is not null")
        connection.execute(earlier, {"s": seconds})


def ids(batch: Sequence[Claim]) -> list[int]:
    return [claim.item_id for claim in batch]
