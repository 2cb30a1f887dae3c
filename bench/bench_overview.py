"""What a backlog costs the people who look at it: the overview and the failures with 1,000 items and with 1,000,000.

Two databases on one server, asked in turn. Of the items in each, six tenths wait, three tenths were done during the
last day and a tenth failed. Every request looks at the database anew: the second that the overview remembers is taken
away.
"""

from __future__ import annotations

import argparse
import time

from fastapi.testclient import TestClient
from running import bar, database, interleaved, running_postgres
from sqlalchemy import text

from imgpipe_orchestration.devstack.postgres import Postgres
from imgpipe_orchestration.gateway.app import create_app
from imgpipe_orchestration.gateway.pages import figures
from imgpipe_orchestration.settings import Settings
from imgpipe_orchestration.storage.rows import transaction

QUEUES = ("media", "listings", "vision_analyses", "avatar_images")

_ITEMS = text("""
    insert into work_items (queue, item_id, tenant, state, turn, error, created_at, updated_at)
    select :queue, n, n % 100, case when n % 10 < 6 then 'waiting' when n % 10 < 9 then 'done' else 'failed' end, n,
        case when n % 10 = 9 then 'The image is truncated.' end, now() - interval '1 hour', now()
    from generate_series(1, :many) as n
""")

_ATTEMPTS = text("""
    insert into work_attempts (queue, item_id, attempt, owner, started_at, ended_at, outcome)
    select queue, item_id, 1, 'bench', ended, ended, state from (
        select queue, item_id, state, now() - interval '1 day' * (item_id % 1000) / 1000.0 as ended
        from work_items where queue = :queue and state in ('done', 'failed')
    ) as one
""")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--large", type=int, default=1_000_000, help="items in the large database")
    parser.add_argument("--rounds", type=int, default=30)
    arguments = parser.parse_args()
    figures.FRESH = 0.0
    with running_postgres() as server:
        urls = furnished(server, "small", 1000), furnished(server, "large", arguments.large)
        small, large = map(gateway, urls)
        with small, large:
            for path in ("/", "/failures"):
                first = [timed(small, path), timed(large, path)]
                few, many = interleaved(arguments.rounds, lambda: timed(small, path), lambda: timed(large, path))  # noqa: B023
                print(f"GET {path}: {few * 1000:.1f} ms with 1,000 items, {many * 1000:.1f} with {arguments.large:,}")
                print(f"  the very first one: {first[0] * 1000:.0f} ms and {first[1] * 1000:.0f} ms")
                name = "overview" if path == "/" else "failures"
                ratio = many / few
                bar(f"{name}_large_by_small", ratio, 2)
        few, many = interleaved(5, lambda: first_after_a_start(urls[0]), lambda: first_after_a_start(urls[1]))
        print(
            f"the first GET / after a restart: {few * 1000:.0f} ms with 1,000 items, {many * 1000:.0f} with the others"
        )
        bar("first_overview_large_by_small", many / few, 2)


def first_after_a_start(url: str) -> float:
    with gateway(url) as client:
        return timed(client, "/")


def furnished(server: Postgres, name: str, items: int) -> str:
    """The URL of a database of its own with that many items."""
    with database(server, name) as engine, transaction(engine) as connection:
        connection.execute(text("set local statement_timeout = 0"))
        for queue in QUEUES:
            connection.execute(_ITEMS, {"queue": queue, "many": items // len(QUEUES)})
            connection.execute(_ATTEMPTS, {"queue": queue})
    return server.ensure_database(name)


def gateway(url: str) -> TestClient:
    """A gateway that has just started."""
    app = create_app(Settings(database_url=url))
    return TestClient(app, base_url="http://127.0.0.1", client=("127.0.0.1", 1))


def timed(client: TestClient, path: str) -> float:
    """Seconds that one request takes."""
    begun = time.perf_counter()
    answer = client.get(path)
    assert answer.status_code == 200, answer.text
    return time.perf_counter() - begun


if __name__ == "__main__":
    main()
