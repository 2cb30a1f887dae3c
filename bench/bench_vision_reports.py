"""Twenty analyses of ten images through the whole stack, against stand-ins that take a fixed time.

The bound is what nobody can beat: seconds a call x calls / calls allowed at once. A call takes four seconds by default,
as vision models do for a photograph in detail (three to ten). The clock runs from asking for the execution over REST
until the last report has arrived at the external API: sensor, run start, downloads, image work, the model's delay,
reports and uploads are all in it.
"""

import time
from typing import Any

from running import bar, cron_job, options, stack_with_partners, standins

from imgpipe_orchestration.devstack.demo.scenario import Stack
from imgpipe_orchestration.vision_reports.batch_work import PARALLEL_CALLS
from imgpipe_orchestration_tests.devstack.running import wait_for

ORGANIZATION = "bench-organization"


def main() -> None:
    arguments = options(__doc__, analyses=20, images=10, delay=4.0)
    with stack_with_partners() as stack:
        standins(stack, "POST", "delays", {"openai.responses": arguments.delay})
        job = cron_job(stack, ORGANIZATION)
        execute(stack, job, 1, 1)  # what is slow once is not what is measured
        wall = execute(stack, job, arguments.analyses, arguments.images)
    bound = arguments.delay * arguments.analyses * arguments.images / PARALLEL_CALLS
    print(f"{arguments.analyses} analyses of {arguments.images} images, {PARALLEL_CALLS} calls at once")
    print(f"from asking to the last upload {wall:.1f} s, bound {bound:.1f} s")
    bar("vision_reports_wall_over_bound", wall / bound, 1.3)


def execute(stack: Stack, job: str, analyses: int, images: int) -> float:
    """Seconds from asking to the last upload of one execution."""
    seeds = [{"organization_id": ORGANIZATION, "images": images} for _ in range(analyses)]
    standins(stack, "POST", "vision-analyses", seeds)
    asked = time.time()
    stack.operated("POST", f"/cron-jobs/{job}/run")

    def finished() -> dict[str, Any] | None:
        execution: dict[str, Any] = stack.operated("GET", f"/cron-jobs/{job}/executions?limit=1")["executions"][0]
        return None if execution["status"] == "running" else execution

    execution = wait_for(finished, "the execution", 600)
    assert execution["successful"] == analyses, execution
    return float(max(report["at"] for report in standins(stack, "GET", "reports")) - asked)


if __name__ == "__main__":
    main()
