"""A worker as a process of its own: `python -m ... listings|calls OWNER [URL]`, settings from the environment.

It takes work until none is left, as the runs of a daemon do one after the other.
"""

from __future__ import annotations

import sys
import time

import requests
from sqlalchemy import text

from imgpipe_orchestration.listings.drain import drain
from imgpipe_orchestration.services import Services
from imgpipe_orchestration.settings import load
from imgpipe_orchestration.storage.claims import Claim, Queue
from imgpipe_orchestration.storage.rows import transaction
from imgpipe_orchestration.storage.work import work_through

CALLS = Queue("calls", max_attempts=3)
BATCH = 8


def unfinished(services: Services) -> bool:
    with transaction(services.engine) as connection:
        return bool(
            connection.scalar(text("select exists (select from work_items where state in ('waiting', 'claimed'))"))
        )


def ask(services: Services, owner: str, url: str) -> None:
    """One batch of items, each of which waits for somebody else's server."""

    def step(claim: Claim) -> None:
        requests.get(url, timeout=30).raise_for_status()
        with services.claims.fenced(claim) as connection:
            connection.execute(text("insert into made values (:item)"), {"item": claim.item_id})
            services.claims.finish(connection, CALLS, claim)

    with services.claims.hold(owner):
        work_through(services.claims, CALLS, services.claims.claim(CALLS, owner, BATCH), step, threads=4)


def main(kind: str, owner: str, url: str = "") -> None:
    services = Services(load())
    while unfinished(services):
        if kind == "listings":
            drain(services, owner)
        else:
            ask(services, owner, url)
        time.sleep(0.05)
    services.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
