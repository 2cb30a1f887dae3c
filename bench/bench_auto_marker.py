"""Documents marked per second by the auto-marker's step, over a loop that only sends the same guarded writes.

On the embedded MongoDB, or on the server that MONGODB_TEST_URL names. The step plans, keeps job instances in
PostgreSQL, finds and writes; the loop knows all ids and images beforehand.
"""

import os
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from typing import Any

from pymongo import UpdateOne
from running import bar, interleaved, options, servers, services

from imgpipe_orchestration.auto_marker import runs
from imgpipe_orchestration.auto_marker.model import unchanged
from imgpipe_orchestration.auto_marker.store import NEWS, ImageConfigs, create_indexes
from imgpipe_orchestration.devstack.mongo import Mongo
from imgpipe_orchestration.devstack.ports import free_port
from imgpipe_orchestration.wiring.services import Services
from imgpipe_orchestration_tests.parts import running

BATCH = 50
Documents = dict[str, list[dict[str, Any]]]
_round = iter(range(1_000_000))


def main() -> None:
    arguments = options(__doc__, rounds=5, customers=100)
    with ExitStack() as stack:
        postgres, _ = stack.enter_context(servers())
        given = os.environ.get("MONGODB_TEST_URL", "").rstrip("/")
        mongo = given or stack.enter_context(running(Mongo(postgres.folder.parent / "mongo", free_port()))).url
        made = stack.enter_context(services(postgres, None, "bench", mongodb_url=f"{mongo}/imgpipe_bench"))
        # Before and after: that server may be somebody's.
        drop = partial(made.documents.client.drop_database, made.documents.database.name)
        drop()
        stack.callback(drop)
        create_indexes(made.documents)
        compare = partial(rate, made, arguments.customers)
        ours, alone = interleaved(arguments.rounds, partial(compare, step), partial(compare, bare))
    print(f"documents a second: {ours:,.0f}, only the writes {alone:,.0f}")
    bar("auto_marker_step_over_bare_writes", ours / alone, 0.8, at_least=True)


def rate(made: Services, customers: int, way: Callable[[Services, Documents], int]) -> float:
    """Documents a second of one way of marking."""
    news, turn = made.documents.collection(NEWS), next(_round)
    news.delete_many({})  # every round finds the same
    documents = {name: pending(name) for name in (f"round{turn}-{n}" for n in range(customers))}
    news.insert_many([one for each in documents.values() for one in each])
    for customer in documents:
        ImageConfigs(made.documents).add_new(customer)
    began = time.perf_counter()
    marked = way(made, documents)
    seconds = time.perf_counter() - began
    assert marked == customers * BATCH, (marked, customers * BATCH)
    return marked / seconds


def pending(customer: str) -> list[dict[str, Any]]:
    address = f"https://cdn.example.com/{customer}"
    return [{"customer_id": customer, "image": f"{address}/{n}.jpg", "short_summary": "s" * 200} for n in range(BATCH)]


def bare(made: Services, documents: Documents) -> int:
    news = made.documents.collection(NEWS)
    marked = 0
    for customer, each in documents.items():
        writes = []
        for document in each:
            change = {"clean_image": document["image"], "auto_marked_cleaned": True}
            update = {"$set": change, "$currentDate": {"clean_image_updated_at": True}}
            writes.append(UpdateOne(unchanged(customer, document), update))
        marked += news.bulk_write(writes, ordered=False).modified_count
    return marked


def step(made: Services, _: Documents) -> int:
    marked: list[int] = []
    todo = runs.begin_round(made)[0]
    runs.mark_round(made, todo, "bench", lambda figures: marked.append(figures.marked))
    return sum(marked)


if __name__ == "__main__":
    main()
