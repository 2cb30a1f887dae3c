"""Jobs for the tests of launchers, sensors and housekeeping."""

import logging
import os
import signal
import time
from pathlib import Path

import dagster as dg

from imgpipe_orchestration.resources import BackendsResource
from imgpipe_orchestration.telemetry import tracing
from imgpipe_orchestration_tests.dagster_side.instances import health


@dg.op
def say_pid(context: dg.OpExecutionContext) -> None:
    told = {"pid": os.getpid(), "parent": os.getppid(), "theirs": os.environ.get("THEIRS", "")}
    context.add_output_metadata(told)


@dg.job(executor_def=dg.in_process_executor)
def quick() -> None:
    say_pid()


@dg.op
def works() -> None:
    return None


@dg.job
def working() -> None:
    works()


@dg.op
def breaks() -> None:
    raise ValueError("no luck with <this> & postgresql://u:hidden-word@h/d")


@dg.job
def broken() -> None:
    breaks()


COLLECTOR_TAG = "collector"


@dg.op
def leave_a_span(context: dg.OpExecutionContext) -> None:
    os.environ["OTEL_EXPORTER_OTLP_ENDPOINT"] = context.run.tags[COLLECTOR_TAG]  # the process ends with the run
    tracing.configure()
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


DEAF_TAG = "deaf"


@dg.op
def sleep_on(context: dg.OpExecutionContext) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    Path(context.run.tags[DEAF_TAG]).touch()
    time.sleep(600)


@dg.job(executor_def=dg.in_process_executor)
def deaf() -> None:
    sleep_on()


@dg.op
def tell_of_logs(context: dg.OpExecutionContext, backends: BackendsResource) -> None:
    kinds = [type(handler.formatter).__name__ for handler in logging.getLogger().handlers]
    context.add_output_metadata({"formatters": ", ".join(kinds)})


@dg.job(executor_def=dg.in_process_executor, resource_defs={"backends": BackendsResource()})
def logged() -> None:
    tell_of_logs()
