"""An executor that runs the steps of a run in parallel, in threads of the run's process.

It is for steps that mostly wait. Dagster's own executors run steps one after another (in process) or each in a new
interpreter (multiprocess), which takes three seconds of CPU. Like those it imports from `dagster._core`: `Executor` is
public, but what executes a step is not. Hooks are not supported.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from queue import Empty, SimpleQueue

import dagster as dg
from dagster._core.errors import DagsterExecutionInterruptedError, raise_execution_interrupts
from dagster._core.execution.api import ExecuteRunWithPlanIterable
from dagster._core.execution.context.system import PlanExecutionContext, PlanOrchestrationContext, StepExecutionContext
from dagster._core.execution.context_creation_job import PlanExecutionContextManager
from dagster._core.execution.plan.execute_plan import dagster_event_sequence_for_step
from dagster._core.execution.plan.instance_concurrency_context import InstanceConcurrencyContext
from dagster._core.execution.plan.objects import ErrorSource, step_failure_event_from_exc_info
from dagster._core.execution.plan.plan import ExecutionPlan
from dagster._core.execution.retries import RetryMode

AT_ONCE = 50
_LOOK_SECONDS = 1.0
"""How often steps that wait for a retry or for a slot of a pool are checked while nothing else happens."""

_Message = tuple[StepExecutionContext, dg.DagsterEvent | None]
"""A step and one of its events; None at the step's end."""


@dg.executor(
    name="threads",
    config_schema={"max_concurrent": dg.Field(int, default_value=AT_ONCE, description="Steps at once.")},
)
def threads_executor(context: dg.InitExecutorContext) -> dg.Executor:
    """Runs steps in parallel, in threads of the run's process."""
    return ThreadsExecutor(int(context.executor_config["max_concurrent"]))  # type: ignore[call-overload]


class ThreadsExecutor(dg.Executor):
    """Runs each step in a thread and passes on their events.

    When the run is stopped, steps in progress fail, and their threads are not waited for.
    """

    def __init__(self, at_once: int) -> None:
        self._at_once = at_once

    @property
    def retries(self) -> RetryMode:
        return RetryMode.ENABLED

    def execute(
        self, plan_context: PlanOrchestrationContext, execution_plan: ExecutionPlan
    ) -> Iterator[dg.DagsterEvent]:
        manager = PlanExecutionContextManager(
            job=plan_context.job,
            retry_mode=plan_context.retry_mode,
            execution_plan=execution_plan,
            run_config=plan_context.run_config,
            dagster_run=plan_context.dagster_run,
            instance=plan_context.instance,
            raise_on_error=False,  # nobody could catch an error in a thread; the failure event reports it
            output_capture=plan_context.output_capture,
        )
        yield from ExecuteRunWithPlanIterable(execution_plan, self._run, manager)

    def _run(self, job_context: PlanExecutionContext, execution_plan: ExecutionPlan) -> Iterator[dg.DagsterEvent]:
        messages: SimpleQueue[_Message] = SimpleQueue()
        running: dict[str, StepExecutionContext] = {}
        with (
            InstanceConcurrencyContext(job_context.instance, job_context.dagster_run) as slots,
            execution_plan.start(job_context.retry_mode, instance_concurrency_context=slots) as active,
            ExitStack() as stack,
        ):
            yield _captured_logs(job_context, execution_plan, stack)
            while not active.is_complete:
                for step in active.get_steps_to_execute(self._at_once - len(running)):
                    running[step.key] = job_context.for_step(step, active.get_known_state())
                    # A daemon thread, so that a run that is stopped does not wait for a step in a long call.
                    work = (running[step.key], messages)
                    threading.Thread(target=_work, args=work, name=step.key, daemon=True).start()
                yield from active.concurrency_event_iterator(job_context)
                try:
                    with raise_execution_interrupts():
                        context, event = messages.get(timeout=_LOOK_SECONDS)
                except Empty:
                    continue
                except DagsterExecutionInterruptedError:
                    active.mark_interrupted()
                    for stopped in running.values():
                        yield step_failure_event_from_exc_info(
                            stopped, sys.exc_info(), error_source=ErrorSource.INTERRUPT
                        )
                    raise
                if event is not None:
                    yield event
                    active.handle_event(event)
                elif running.get(context.step.key) is context:  # otherwise it is already being retried
                    active.verify_complete(job_context, context.step.key)
                    del running[context.step.key]
                # Skips steps that can no longer run, and adds steps that are mapped over a step's outputs.
                yield from active.plan_events_iterator(job_context)


def _work(context: StepExecutionContext, messages: SimpleQueue[_Message]) -> None:
    """Run one step in its thread. Its events are stored, with their times, before they are passed on."""
    try:
        for event in dagster_event_sequence_for_step(context):
            messages.put((context, event))
    finally:
        messages.put((context, None))


def _captured_logs(job: PlanExecutionContext, plan: ExecutionPlan, stack: ExitStack) -> dg.DagsterEvent:
    """Capture the process's output as one log for all steps, like the in-process executor."""
    logs = job.instance.compute_log_manager
    key = logs.build_log_key_for_run(job.run_id, "all_steps")
    steps = [step.key for step in plan.get_steps_to_execute_in_topo_order()]
    event: dg.DagsterEvent = dg.DagsterEvent.capture_logs(job, steps, key, stack.enter_context(logs.capture_logs(key)))
    return event
