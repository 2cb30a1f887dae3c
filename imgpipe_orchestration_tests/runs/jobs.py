"""Jobs for the launcher's tests."""

import os
import time

import dagster as dg


@dg.op
def say_pid(context: dg.OpExecutionContext) -> None:
    context.add_output_metadata({"pid": os.getpid(), "parent": os.getppid()})


@dg.job(executor_def=dg.in_process_executor)
def quick() -> None:
    say_pid()


@dg.op
def sleep() -> None:
    time.sleep(600)


@dg.job(executor_def=dg.in_process_executor)
def endless() -> None:
    sleep()
