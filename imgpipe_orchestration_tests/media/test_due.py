"""Which days the sensor asks runs for."""

from imgpipe_orchestration.media import store
from imgpipe_orchestration.media.intake import due_days
from imgpipe_orchestration.storage.claims import Item, Queue
from imgpipe_orchestration.storage.rows import transaction
from imgpipe_orchestration_tests.media.conftest import Gateway, picture
from imgpipe_orchestration_tests.media.worker import today


def test_uploads_do_not_wait_for_the_days_that_a_backfill_left(gateway: Gateway) -> None:
    wait(gateway, store.REMAKE_VARIANTS, [f"2026-01-{day:02}" for day in range(1, 31)])
    wait(gateway, store.REMAKE_ANALYSIS, ["2025-12-31"])
    assert due_days(gateway.services, limit=5) == ["2025-12-31"]
    gateway.upload(1, profile_image=picture(32, 32))
    assert due_days(gateway.services, limit=5) == [today(), "2025-12-31"], "not yet read from pending_images"
    gateway.run_due()
    assert due_days(gateway.services, limit=5) == ["2025-12-31"]


def test_of_an_outages_days_the_latest_comes_first_then_the_oldest_and_a_backfill_has_its_turn(
    gateway: Gateway,
) -> None:
    days = [f"2026-02-{day:02}" for day in range(1, 9)]
    wait(gateway, store.MEDIA, days)
    wait(gateway, store.REMAKE_VARIANTS, [days[0], days[7]])
    assert due_days(gateway.services, limit=3) == [days[7], days[0], days[1]]
    wait(gateway, store.REMAKE_ANALYSIS, ["2026-01-31"])
    assert due_days(gateway.services, limit=2) == [days[7], days[0], "2026-01-31"]
    gateway.upload(1, profile_image=picture(32, 32))
    assert due_days(gateway.services, limit=2)[:2] == [today(), days[0]]


def wait(gateway: Gateway, queue: Queue, days: list[str]) -> None:
    """An item in the queue for each of the days."""
    with transaction(gateway.services.engine) as connection:
        items = [Item(1000 + number, partition=day) for number, day in enumerate(days)]
        gateway.services.claims.enqueue(connection, queue, items)
