"""Steps in threads: side by side with their true times, each failing alone, tried again, stopped with the run."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import dagster as dg
import pytest

from imgpipe_orchestration_tests.devstack.running import wait_for
from imgpipe_orchestration_tests.runs import jobs

ENDS = {"STEP_SUCCESS", "STEP_FAILURE", "STEP_UP_FOR_RETRY"}


@dataclass
class Finished:
    """A run and its steps' attempts as the UI's timeline has them: (how it ended, beginning, end)."""

    result: dg.JobExecutionResult
    attempts: dict[str, list[tuple[str, float, float]]]


@pytest.fixture(scope="module")
def finished() -> Iterator[Finished]:
    with dg.DagsterInstance.ephemeral() as instance:
        result = dg.execute_job(dg.reconstructable(jobs.side_by_side), instance=instance)
        attempts: dict[str, list[tuple[str, float, float]]] = {}
        begun: dict[str, float] = {}
        for entry in instance.all_logs(result.run_id):
            event = entry.dagster_event
            if event is None or event.step_key is None:
                continue
            if event.event_type_value in {"STEP_START", "STEP_RESTARTED"}:
                begun[event.step_key] = entry.timestamp
            elif event.event_type_value in ENDS:
                times = (event.event_type_value, begun[event.step_key], entry.timestamp)
                attempts.setdefault(event.step_key, []).append(times)
        yield Finished(result, attempts)


def test_steps_overlap_and_never_more_than_allowed(finished: Finished) -> None:
    spans = [times for key, times in finished.attempts.items() if key.startswith("wait_a_moment")]
    edges = sorted([(begin, 1) for ((_, begin, _), *_) in spans] + [(end, -1) for ((_, _, end), *_) in spans])
    at_once, most = 0, 0
    for _, change in edges:
        at_once += change
        most = max(most, at_once)
    assert most == 3


def test_a_step_that_fails_fails_alone_and_takes_only_those_that_depend_on_it(finished: Finished) -> None:
    ends = {key: attempts[-1][0] for key, attempts in finished.attempts.items()}
    assert not finished.result.success
    assert [key for key, end in ends.items() if end == "STEP_FAILURE"] == ["wait_a_moment[n5]"]
    assert sorted(key for key in ends if key.startswith("after")) == [f"after[n{n}]" for n in range(5)]


def test_a_step_with_a_retry_policy_is_tried_again(finished: Finished) -> None:
    assert [end for end, _, _ in finished.attempts["wait_a_moment[n2]"]] == ["STEP_UP_FOR_RETRY", "STEP_SUCCESS"]


def test_a_step_may_be_tried_again_before_its_first_thread_is_gone() -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        result = dg.execute_job(dg.reconstructable(jobs.with_room), instance=instance)
    assert result.get_failed_step_keys() == {"wait_a_moment[n5]"}
    assert len(result.get_step_success_events()) == 6


def test_a_run_that_is_stopped_fails_the_steps_under_way_and_ends(tmp_path: Path) -> None:
    # In files, for in memory SQLite refuses one thread what another is writing.
    with dg.DagsterInstance.local_temp(str(tmp_path)) as instance:

        def stop() -> None:
            wait_for(lambda: _started(instance) == 6, "the steps to start", 30)
            instance.report_run_canceling(instance.get_runs()[0])  # as the launcher does when somebody stops it
            os.kill(os.getpid(), signal.SIGTERM)

        stopper = threading.Thread(target=stop)
        stopper.start()
        job = dg.reconstructable(jobs.endless_side_by_side)
        with pytest.raises(dg.DagsterExecutionInterruptedError):
            dg.execute_job(job, instance=instance, raise_on_error=True)
        stopper.join()
        (run,) = instance.get_runs()
        assert run.status is dg.DagsterRunStatus.CANCELED
        events = [entry.dagster_event for entry in instance.all_logs(run.run_id)]
        assert sum(event is not None and event.event_type_value == "STEP_FAILURE" for event in events) == 6


def _started(instance: dg.DagsterInstance) -> int:
    runs = instance.get_runs()
    entries = instance.all_logs(runs[0].run_id) if runs else []
    return sum(
        entry.dagster_event is not None
        and entry.dagster_event.event_type_value == "STEP_START"
        and str(entry.dagster_event.step_key).startswith("sleep_beside")
        for entry in entries
    )
