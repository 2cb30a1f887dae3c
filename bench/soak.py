"""A long day in short: uploads mixed over all five pipelines, some of them broken, partners that fail now and then.

Prints what each process keeps in memory and how that grows, how large the databases are before and after the retention
job, and whether the object store and the rows agree in the end. `make soak` runs 5,000 (some 40 minutes on two cores);
`make soak ARGS="--uploads 400 --minutes 12"` stops feeding after twelve minutes and says how far it came.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import random
import statistics
import subprocess
import sys
import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from PIL import Image
from running import bar, rows, running_stack, wait_for

from imgpipe_orchestration.devstack import stackfile
from imgpipe_orchestration.devstack.demo.scenario import Stack
from imgpipe_orchestration.storage.documents import Documents

SHARES = {"media": 0.44, "listings": 0.44, "auto_marker": 0.09, "vision_reports": 0.02, "avatars": 0.01}
FAULTS = 0.01
AT_ONCE = 40
"""Unfinished items past which nothing more is fed: so work goes on evenly until the end."""
SAMPLE_SECONDS = 3.0
RETENTION = {"RETENTION_DAYS": "0.0003", "RETENTION_RUNS_DAYS": "0.0003"}
"""Half a minute: what ended is old at the next retention run."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--uploads", type=int, default=5000)
    parser.add_argument("--minutes", type=float, default=24 * 60, help="stop feeding after these")
    parser.add_argument("--patience", type=float, default=600, help="seconds for what was fed to be finished")
    arguments = parser.parse_args()
    os.environ |= RETENTION
    with running_stack() as stack:
        soak = Soak(stack)
        soak.let_partners_fail()
        soak.run(arguments.uploads, arguments.minutes * 60, arguments.patience)
        soak.report()


@dataclass
class Soak:
    """One run over one stack."""

    stack: Stack
    fed: Counter[str] = field(default_factory=Counter)
    broken: int = 0
    samples: list[tuple[float, int, dict[str, float]]] = field(default_factory=list)
    sizes: list[tuple[int, str, dict[str, float]]] = field(default_factory=list)
    dice: random.Random = field(default_factory=lambda: random.Random(0))
    refused: Counter[int] = field(default_factory=Counter)

    def let_partners_fail(self) -> None:
        base = self.stack.environment["OPENAI_BASE_URL"].removesuffix("/openai/v1")
        for provider in ("openai", "google", "flowise", "vision_analysis"):
            for kind in ("server_error", "truncated_json", "cut", "rate_limit"):
                fault = {"provider": provider, "kind": kind, "count": None, "probability": FAULTS / 4}
                self.stack.request("POST", f"{base}/_standin/faults", json=fault).raise_for_status()

    def run(self, uploads: int, seconds: float, patience: float) -> None:
        began = sampled = time.monotonic()
        checkpoints = [uploads * part // 4 for part in (1, 2, 3)]
        while self.total < uploads and time.monotonic() - began < seconds:
            if self.unfinished() < AT_ONCE:
                for _ in range(10):
                    self.feed_one()
            if checkpoints and self.total >= checkpoints[0]:
                checkpoints.pop(0)
                self.retain()
            if time.monotonic() - sampled >= SAMPLE_SECONDS:
                sampled = time.monotonic()
                self.samples.append((sampled - began, self.total, self.memory()))
                if len(self.samples) % 10 == 1:
                    print(f"{sampled - began:.0f} s: {self.total} fed, {self.unfinished()} unfinished", flush=True)
            time.sleep(0.2)
        deadline = time.monotonic() + patience
        while self.unfinished() and time.monotonic() < deadline:
            time.sleep(0.5)
        print(f"{self.unfinished()} unfinished {time.monotonic() - deadline + patience:.0f} s after the last upload")
        self.samples.append((time.monotonic() - began, self.total, self.memory()))
        time.sleep(60 * 60 * 24 * float(RETENTION["RETENTION_DAYS"]))
        self.retain()
        self.seconds = time.monotonic() - began

    @property
    def total(self) -> int:
        return self.fed.total()

    # --- feeding -------------------------------------------------------------------------------------------------

    def feed_one(self) -> None:
        pipeline = self.dice.choices(list(SHARES), list(SHARES.values()))[0]
        getattr(self, f"_feed_{pipeline}")()
        self.fed[pipeline] += 1

    def _picture(self) -> bytes:
        seed = self.dice.randrange(1 << 30)
        colours = np.random.default_rng(seed).integers(0, 256, (6, 9, 3), dtype=np.uint8)
        out = io.BytesIO()
        Image.fromarray(colours).resize((900, 600), Image.Resampling.BICUBIC).save(out, "JPEG")
        data = out.getvalue()
        if self.dice.random() < FAULTS:
            self.broken += 1
            return data[: len(data) // 3]
        return data

    def _feed_media(self) -> None:
        field = self.dice.choice(("profile_image", "product_image", "event_image", "site_image"))
        headers = self.stack.user_headers(self.dice.randrange(1, 200))
        self._send("PATCH", "/users/me", headers=headers, files={field: ("a.jpg", self._picture())})

    def _feed_listings(self) -> None:
        self._send(
            "POST",
            "/api/upload/listing_image",
            headers=self.stack.user_headers(self.dice.randrange(1, 200)),
            data={"listing_title": "A bicycle"},
            files={"images": ("a.jpg", self._picture())},
        )

    def _feed_auto_marker(self) -> None:
        environment, customer = self.stack.environment, f"soak-{self.dice.randrange(20)}"
        documents = Documents(environment["MONGODB_URL"], database=environment["MONGODB_DATABASE"])
        number = self.fed["auto_marker"]
        documents.collection("news_document").insert_one(
            {
                "customer_id": customer,
                "title": f"News {number}",
                "image": f"https://example.com/{number}.jpg",
                "short_summary": "What happened.",
            }
        )
        documents.close()
        self._send("POST", "/api/jobs/trigger", headers={"X-Customer-ID": customer})

    def _feed_vision_reports(self) -> None:
        base = self.stack.environment["EXTERNAL_API_GET_URL"].partition("/vision-analysis/")[0]
        self.stack.request("PUT", f"{base}/_standin/files/soak.jpg", data=self._picture())
        seed = {"organization_id": "soak", "organization_name": "Soak", "files": ["soak.jpg"], "images": 1}
        self.stack.request("POST", f"{base}/_standin/vision-analyses", json=seed)
        admin = self.stack.admin_headers()
        if not self.fed["vision_reports"]:
            job = {
                "name": "soak",
                "schedule": "0 0 1 1 *",
                "external_api_get_url": self.stack.environment["EXTERNAL_API_GET_URL"],
                "external_api_post_url": self.stack.environment["EXTERNAL_API_POST_URL"],
                "external_api_key": self.stack.environment["EXTERNAL_API_KEY"],
                "backend_api_url": self.stack.environment["BACKEND_API_URL"],
                "organization_id": "soak",
            }
            self.job = self.stack.request("POST", "/cron-jobs", json=job, headers=admin).json()["job_id"]
        self._send("POST", f"/cron-jobs/{self.job}/run", headers=admin)

    def _feed_avatars(self) -> None:
        wanted = {"count": 1, "brief": "A baker", "seed": self.fed["avatars"] + 1}
        self._send("POST", "/api/avatars/tasks", json=wanted, headers=self.stack.admin_headers())

    def _send(self, method: str, path: str, **options: Any) -> None:
        answer = self.stack.request(method, path, **options)
        if not answer.ok:
            self.refused[answer.status_code] += 1

    # --- looking -------------------------------------------------------------------------------------------------

    def unfinished(self) -> int:
        query = """
            select (select count(*) from work_items where state in ('waiting', 'claimed'))
                + (select count(*) from pending_images where status in ('pending', 'processed'))
                + (select count(*) from job_instances where status in ('queued', 'running'))
        """
        return int(rows(self.stack, query)[0][0])

    def memory(self) -> dict[str, float]:
        """Megabytes of their own, by part; runs come and go and are told apart."""
        found: defaultdict[str, float] = defaultdict(float)
        running = stackfile.read(self.data)
        assert running is not None
        for part in running.parts:
            try:
                process = psutil.Process(part["pid"])
                family = [process, *process.children(recursive=True)]
            except psutil.NoSuchProcess:
                continue
            for member in family:
                with contextlib.suppress(psutil.NoSuchProcess):
                    name = part["name"]
                    if name == "dagster-daemon" and member.pid != process.pid:
                        name = "forkserver" if member.ppid() == process.pid else "runs"
                    found[name] += member.memory_full_info().uss / 2**20
        found["supervisor"] = psutil.Process(running.pid).memory_full_info().uss / 2**20
        return dict(found)

    @property
    def data(self) -> Path:
        return Path(self.stack.environment["IMGPIPE_DATA_DIR"])

    def retain(self) -> None:
        """Run the retention job, and measure before and after."""
        self.sizes.append((self.total, "before", self.stored()))
        query = """mutation Launch($e: ExecutionParams!) { launchRun(executionParams: $e) {
            __typename ... on LaunchRunSuccess { run { runId } } ... on PythonError { message } } }"""
        selector = {
            "repositoryLocationName": "imgpipe",
            "repositoryName": "__repository__",
            "pipelineName": "retention",
        }
        body = {"query": query, "variables": {"e": {"selector": selector, "mode": "default"}}}
        answer = self.stack.request("POST", self.stack.dagster("/graphql"), json=body).json()
        run = answer["data"]["launchRun"]["run"]["runId"]
        wait_for(lambda: self._ended(run), "the retention job", 240)
        self.sizes.append((self.total, "after", self.stored()))

    def _ended(self, run: str) -> bool:
        found = rows(self.stack, "select status from runs where run_id = %s", run, dagster=True)
        return bool(found) and found[0][0] in {"SUCCESS", "FAILURE"}

    def stored(self) -> dict[str, float]:
        found: dict[str, float] = {}
        for name, query, dagster in (
            ("work_items", "select count(*) from work_items", False),
            ("work_attempts", "select count(*) from work_attempts", False),
            ("job_instances", "select count(*) from job_instances", False),
            ("imgpipe MB", "select pg_database_size(current_database()) / 1048576.0", False),
            ("runs", "select count(*) from runs", True),
            ("events", "select count(*) from event_logs", True),
            ("ticks", "select count(*) from job_ticks", True),
            ("dagster MB", "select pg_database_size(current_database()) / 1048576.0", True),
        ):
            found[name] = float(rows(self.stack, query, dagster=dagster)[0][0])
        return found

    # --- telling -------------------------------------------------------------------------------------------------

    def report(self) -> None:
        print(f"{self.total} uploads in {self.seconds:.0f} s: {dict(self.fed)}; {self.broken} broken files")
        print(f"requests refused: {dict(self.refused) or 'none'}")
        states = rows(self.stack, "select queue, state, count(*) from work_items group by 1, 2 order by 1, 2")
        print("left in the queues after retention:", ", ".join(f"{q} {s} {n}" for q, s, n in states) or "nothing")
        query = "select queue, error_code, count(*) from work_items where state = 'failed' group by 1, 2"
        failed = rows(self.stack, query)
        for queue, code, count in failed:
            print(f"  {queue} failed {count}: {code}")
        self._tell_memory()
        for total, when, sizes in self.sizes:
            print(f"after {total:5} {when:6} retention: " + ", ".join(f"{k} {v:.0f}" for k, v in sizes.items()))
        self._tell_orphans()

    def _tell_memory(self) -> None:
        """The slope is that of the second half, in MB for each 1,000 uploads."""
        print(f"{'MB of its own':20} {'first':>8} {'median':>8} {'last':>8} {'most':>8} {'slope':>8}")
        half = self.samples[len(self.samples) // 2 :]
        for name in sorted({name for _, _, memory in self.samples for name in memory}):
            values = [memory.get(name, 0.0) for _, _, memory in self.samples]
            late = [(uploads, memory[name]) for _, uploads, memory in half if name in memory]
            slope = _slope(late) * 1000
            print(
                f"{name:20} {values[0]:8.1f} {statistics.median(values):8.1f} {values[-1]:8.1f} {max(values):8.1f}"
                f" {slope:+8.2f}"
            )

    def _tell_orphans(self) -> None:
        command = [sys.executable, "-m", "imgpipe_orchestration.cli", "gc", "--json"]
        command += ["--grace-hours", "0", "--data", str(self.data)]
        told = subprocess.run(command, capture_output=True, text=True, check=False)
        found = json.loads(told.stdout)
        for one in found:
            print(f"{one['name']}: {one['objects']} objects, {one['rows']} promised by rows; "
                  f"{one['garbage']} without a row {one['garbage_keys'][:3]}, "
                  f"{one['missing']} missing {one['missing_keys'][:3]}")  # fmt: skip
        bar("objects without rows", sum(one["garbage"] for one in found), 0)
        bar("rows without objects", sum(one["missing"] for one in found), 0)


def _slope(points: list[tuple[float, float]]) -> float:
    """Least squares: growth for each step of the first coordinate."""
    if len(points) < 3 or len({x for x, _ in points}) < 2:
        return 0.0
    return statistics.linear_regression([x for x, _ in points], [y for _, y in points]).slope


if __name__ == "__main__":
    main()
