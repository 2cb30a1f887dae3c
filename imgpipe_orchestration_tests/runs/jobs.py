"""Jobs for the tests of launcher and executor."""

import multiprocessing.util
import os
import signal
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import dagster as dg

from imgpipe_orchestration import tracing
from imgpipe_orchestration.imaging.workshop import Workshop
from imgpipe_orchestration.resources import BackendsResource
from imgpipe_orchestration.runs.threads import threads_executor
from imgpipe_orchestration_tests.runs.instances import health


@dg.op
def say_pid(context: dg.OpExecutionContext) -> None:
    context.add_output_metadata({"pid": os.getpid(), "parent": os.getppid()})


@dg.job(executor_def=dg.in_process_executor)
def quick() -> None:
    say_pid()


@dg.op
def call_a_worker(context: dg.OpExecutionContext) -> None:
    with Workshop(workers=1) as shop:
        folders = {"folder": multiprocessing.util.get_temp_dir(), "left": tempfile.mkdtemp()}
        context.add_output_metadata({"worker": shop.call(os.getpid), **folders})


@dg.job(executor_def=dg.in_process_executor)
def imaging() -> None:
    call_a_worker()


COLLECTOR_TAG = "collector"


@dg.op
def leave_a_span(context: dg.OpExecutionContext) -> None:
    tracing.configure(context.run.tags[COLLECTOR_TAG])
    with tracing.span("left by a run"):
        os.getpid()


@dg.job(executor_def=dg.in_process_executor)
def traced() -> None:
    leave_a_span()


@dg.op
def ask_after_itself(context: dg.OpExecutionContext, backends: BackendsResource) -> None:
    """What run monitoring would be told of this run."""
    context.add_output_metadata({"health": health(context.instance, context.run_id).value})


@dg.job(executor_def=dg.in_process_executor)
def typed() -> None:
    ask_after_itself()


@dg.op
def sleep() -> None:
    time.sleep(600)


@dg.job(executor_def=dg.in_process_executor)
def endless() -> None:
    sleep()


UNTIL_TAG, BEGUN_TAG = "until", "begun"
DEAF_TAG = "deaf"


@dg.op
def wait_for_a_file(context: dg.OpExecutionContext) -> None:
    Path(context.run.tags[BEGUN_TAG]).touch()
    while not Path(context.run.tags[UNTIL_TAG]).exists():
        time.sleep(0.05)


@dg.job(executor_def=dg.in_process_executor)
def until_a_file_is_there() -> None:
    wait_for_a_file()


@dg.op
def sleep_on(context: dg.OpExecutionContext) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    Path(context.run.tags[DEAF_TAG]).touch()
    time.sleep(600)


@dg.job(executor_def=dg.in_process_executor)
def deaf() -> None:
    sleep_on()


@dg.op(out=dg.DynamicOut(int))
def numbers() -> Iterator[dg.DynamicOutput[int]]:
    for number in range(6):
        yield dg.DynamicOutput(number, mapping_key=f"n{number}")


@dg.op(retry_policy=dg.RetryPolicy(max_retries=1))
def wait_a_moment(context: dg.OpExecutionContext, number: int) -> int:
    if number == 2 and context.retry_number == 0:
        raise ValueError("the first time it fails")
    time.sleep(0.5)
    if number == 5:
        raise dg.Failure("this one alone", allow_retries=False)
    return number


@dg.op
def after(number: int) -> None:
    assert number != 5


@dg.job(executor_def=threads_executor.configured({"max_concurrent": 3}))
def side_by_side() -> None:
    numbers().map(lambda number: after(wait_a_moment(number)))


@dg.job(executor_def=threads_executor)
def with_room() -> None:
    numbers().map(wait_a_moment)


@dg.op
def sleep_beside(number: int) -> None:
    time.sleep(600)


@dg.job(executor_def=threads_executor)
def endless_side_by_side() -> None:
    numbers().map(sleep_beside)
