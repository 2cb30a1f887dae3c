"""Twenty analyses of ten images through the whole stack, against stand-ins that take a fixed time.

The bound is what nobody can beat: seconds a call x calls / calls allowed at once. A call takes four seconds by default,
as vision models do for a photograph in detail (three to ten). The clock runs from asking for the
execution over REST until the last report has arrived at the external API: sensor, run start, downloads, image work,
the model's delay, reports and uploads are all in it. A small execution goes first, for comparing memory.
"""

from __future__ import annotations

import argparse
import json
import os
import threading
import time
from contextlib import suppress
from datetime import datetime
from typing import Any

import psutil
from running import bar, rows, running_stack, wait_for

from imgpipe_orchestration.devstack.demo.scenario import Stack
from imgpipe_orchestration.runs.launcher import PROCESS_TAG

ORGANIZATION = "bench-organization"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--analyses", type=int, default=20)
    parser.add_argument("--images", type=int, default=10)
    parser.add_argument("--delay", type=float, default=4.0, help="seconds the model takes an image")
    arguments = parser.parse_args()
    with running_stack() as stack:
        desk = Desk(stack)
        idle = desk.calls_while_idle(25)
        steer(stack, "POST", "delays", {"openai.responses": arguments.delay})
        small = desk.execute(max(1, arguments.analyses // 4), arguments.images)
        large = desk.execute(arguments.analyses, arguments.images)
        parallel = int(stack.environment["VISION_PARALLEL_CALLS"])

    bound = arguments.delay * arguments.analyses * arguments.images / parallel
    print(f"load average of the machine: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    few, many = small["rss"] / 1e6, large["rss"] / 1e6
    print(f"{arguments.analyses} analyses of {arguments.images} images, {arguments.delay:g} s a call, {parallel} calls")
    print(f"bound {bound:.1f} s; asking to last upload {large['wall']:.1f} s, {large['run']:.1f} s of it in the run")
    print(f"memory at most: {few:.0f} MB with {small['total']} analyses, {many:.0f} MB with {large['total']}")
    bar("vision_reports_wall_over_bound", large["wall"] / bound, 1.3)
    bar("vision_reports_memory_of_many_over_few", large["rss"] / small["rss"], 1.15)
    bar("vision_reports_calls_of_idle_sensors", idle, 0)


class Desk:
    """A cron job that is only run when asked, and what becomes of its executions."""

    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        job = {
            "name": "bench",
            "schedule": "0 0 1 1 *",
            "external_api_get_url": stack.environment["EXTERNAL_API_GET_URL"],
            "external_api_post_url": stack.environment["EXTERNAL_API_POST_URL"],
            "external_api_key": stack.environment["EXTERNAL_API_KEY"],
            "organization_id": ORGANIZATION,
        }
        created = stack.request("POST", "/cron-jobs", json=job, headers=stack.admin_headers())
        self.job = created.json()["job_id"]

    def calls_while_idle(self, seconds: float) -> int:
        """Calls to the external API while its sensor ticks and nothing is due."""
        ticks = "select count(*) from job_ticks t where t.status = 'SKIPPED'"
        before = rows(self.stack, ticks, dagster=True)[0][0]
        time.sleep(seconds)
        assert rows(self.stack, ticks, dagster=True)[0][0] > before
        return len(steer(self.stack, "GET", "calls?provider=vision_analysis")["calls"])

    def execute(self, analyses: int, images: int) -> dict[str, Any]:
        """One execution: total, seconds from asking to the last upload, seconds of the run, its most memory."""
        seeds = [{"organization_id": ORGANIZATION, "images": images} for _ in range(analyses)]
        steer(self.stack, "POST", "vision-analyses", seeds)
        headers = self.stack.admin_headers()
        asked = time.time()
        self.stack.request("POST", f"/cron-jobs/{self.job}/run", headers=headers)
        path = f"/cron-jobs/{self.job}/executions?limit=1"
        watched: dict[str, float] = {"rss": 0.0}
        ended = threading.Event()
        watcher = threading.Thread(target=self._watch, args=(path, watched, ended))
        watcher.start()

        def finished() -> dict[str, Any] | None:
            execution: dict[str, Any] = self.stack.request("GET", path, headers=headers).json()["executions"][0]
            return None if execution["status"] == "running" else execution

        try:
            execution = wait_for(finished, "the execution", 600)
        finally:
            ended.set()
            watcher.join()
        assert execution["successful"] == analyses, execution
        last = max(report["at"] for report in steer(self.stack, "GET", "reports"))
        begun = min(datetime.fromisoformat(a["started_at"]).timestamp() for a in execution["analyses"])
        return {"total": analyses, "wall": last - asked, "run": last - begun, **watched}

    def _watch(self, path: str, watched: dict[str, float], ended: threading.Event) -> None:
        """The runs' processes at their largest: what the first leaves waiting is done by another."""
        while not ended.wait(0.5):
            processes = rows(
                self.stack,
                "select t.value from run_tags t join runs r on r.run_id = t.run_id where t.key = %s "
                "and r.pipeline_name = 'vision_reports' and r.status = 'STARTED'",
                PROCESS_TAG,
                dagster=True,
            )
            for (described,) in processes:
                with suppress(psutil.NoSuchProcess):
                    process = psutil.Process(json.loads(described)["pid"])
                    watched["rss"] = max(watched["rss"], float(process.memory_info().rss))


def steer(stack: Stack, method: str, path: str, body: Any = None) -> Any:
    """The stand-ins' own routes."""
    base = stack.environment["EXTERNAL_API_GET_URL"].partition("/vision-analysis/")[0]
    answer = stack.request(method, f"{base}/_standin/{path}", json=body)
    answer.raise_for_status()
    return answer.json()


if __name__ == "__main__":
    main()
