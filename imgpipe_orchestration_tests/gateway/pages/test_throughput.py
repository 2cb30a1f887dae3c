"""Counts by the hour: each item once, whether it was counted before, by another gateway, or never."""

from datetime import UTC, datetime, timedelta

from sqlalchemy import Engine, text

from imgpipe_orchestration.gateway.pages import overview
from imgpipe_orchestration.storage.rows import transaction

NOW = datetime(2026, 11, 20, 12, 34, 56, tzinfo=UTC)


def ended(engine: Engine, at: datetime, outcome: str = "done", item: int = 1) -> None:
    with transaction(engine) as connection:
        connection.execute(
            text("""
                insert into work_attempts (queue, item_id, attempt, owner, started_at, ended_at, outcome)
                values ('media', :item, 1, 'run', :at, :at, :outcome)
            """),
            {"item": item, "at": at, "outcome": outcome},
        )


def hours(engine: Engine, now: datetime) -> dict[int, tuple[int, int]]:
    """Hours with something in them: done and failed by hours before now."""
    with transaction(engine) as connection:
        found = overview.hours_of(connection, now)
    assert len(found) == 24
    last = found[-1][0]
    return {
        (last - hour) // timedelta(hours=1): (counts["media", "done"], counts["media", "failed"])
        for hour, counts in found
        if counts.total()
    }


def test_a_restart_and_a_second_gateway_count_nothing_twice_and_nothing_less(engine: Engine) -> None:
    for minutes in (1, 15, 70, 23 * 60):
        ended(engine, NOW - timedelta(minutes=minutes))
    ended(engine, NOW - timedelta(minutes=15), "failed")
    ended(engine, NOW - timedelta(hours=25))
    expected = {0: (2, 1), 1: (1, 0), 23: (1, 0)}
    assert hours(engine, NOW) == expected
    assert hours(engine, NOW) == expected
    ended(engine, NOW + timedelta(minutes=5))
    later = NOW + timedelta(minutes=20)
    assert hours(engine, later) == hours(engine, later) == {0: (3, 1), 1: (1, 0), 23: (1, 0)}


def test_a_long_pause_leaves_no_gap(engine: Engine) -> None:
    ended(engine, NOW - timedelta(hours=2))
    hours(engine, NOW)
    ended(engine, NOW + timedelta(hours=4))
    ended(engine, NOW + timedelta(hours=30))
    assert hours(engine, NOW + timedelta(hours=6)) == {2: (1, 0), 8: (1, 0)}
    assert hours(engine, NOW + timedelta(hours=31)) == {1: (1, 0)}
    with transaction(engine) as connection:
        oldest = connection.scalar(text("select min(bin) from work_bins"))
    assert oldest >= NOW + timedelta(hours=6)


def test_of_the_auto_marker_images_are_done_and_jobs_fail(engine: Engine) -> None:
    jobs = """insert into job_instances (job, trigger, status, finished_at, result) values
        ('auto_marker', 'scheduled', 'completed', :at, '{"images_marked": 28, "images_failed": 2}'),
        ('auto_marker', 'scheduled', 'failed', :at, '{"images_marked": 1, "images_failed": 40}'),
        ('auto_marker', 'scheduled', 'failed', :at, '{}')"""
    with transaction(engine) as connection:
        connection.execute(text(jobs), {"at": NOW - timedelta(minutes=15)})
        _, counts = overview.hours_of(connection, NOW)[-1]
    assert counts == {("auto_marker", "done"): 29, ("auto_marker", "failed"): 2}
