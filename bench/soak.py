"""A long day in short: uploads mixed over all five pipelines, some of them broken, partners that fail now and then.

Prints what each part keeps in memory and how that grows, what is left in the queues, and whether the object store and
the rows agree in the end. `make soak` sends 5,000 (some 40 minutes on two cores).
"""

import io
import json
import random
import statistics
import subprocess
import sys
import time
from collections import Counter, defaultdict
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import psutil
from PIL import Image
from running import bar, cron_job, launch, options, rows, stack_with_partners, standins

from imgpipe_orchestration.devstack import stackfile
from imgpipe_orchestration.devstack.demo.scenario import Stack
from imgpipe_orchestration.storage.documents import Documents
from imgpipe_orchestration_tests.devstack.running import wait_for

SHARES = {"media": 0.44, "listings": 0.44, "auto_marker": 0.09, "vision_reports": 0.02, "avatars": 0.01}
FAULTS = 0.01
AT_ONCE = 40
"""Unfinished items past which nothing more is fed: so work goes on evenly until the end."""
SAMPLE_SECONDS = 3.0
DAYS = 0.0003
"""Half a minute: what ended is old at the next retention run."""


def main() -> None:
    arguments = options(__doc__, uploads=5000, patience=600.0)
    with stack_with_partners(RETENTION_DAYS=str(DAYS)) as stack:
        for provider in ("openai", "google", "flowise", "vision_analysis"):
            for kind in ("server_error", "truncated_json", "cut", "rate_limit"):
                fault = {"provider": provider, "kind": kind, "count": None, "probability": FAULTS / 4}
                standins(stack, "POST", "faults", fault)
        soak = Soak(stack, cron_job(stack, "soak"))
        began = time.monotonic()
        soak.feed(arguments.uploads)
        wait_for(lambda: not soak.unfinished(), "what was fed to be finished", arguments.patience, every=0.5)
        soak.sample()
        print(f"{soak.fed.total()} uploads in {time.monotonic() - began:.0f} s: {dict(soak.fed)}")
        print(f"{soak.broken} broken files")
        failed = "select queue, error_code, count(*) from work_items where state = 'failed' group by 1, 2"
        for queue, code, count in rows(stack, failed):
            print(f"  {queue} failed {count}: {code}")
        time.sleep(60 * 60 * 24 * DAYS)
        launch(stack, "retention")
        left = rows(stack, "select queue, state, count(*) from work_items group by 1, 2 order by 1, 2")
        print("left in the queues after retention:", left or "nothing")
        soak.tell_memory()
        tell_orphans(soak.data)


@dataclass
class Soak:
    """What is fed to one stack, and how much memory its parts have meanwhile."""

    stack: Stack
    cron_job: str
    fed: Counter[str] = field(default_factory=Counter)
    broken: int = 0
    samples: list[tuple[int, dict[str, float]]] = field(default_factory=list)
    dice: random.Random = field(default_factory=lambda: random.Random(0))

    @property
    def data(self) -> Path:
        return Path(self.stack.environment["IMGPIPE_DATA_DIR"])

    def feed(self, uploads: int) -> None:
        sampled = 0.0
        while self.fed.total() < uploads:
            if self.unfinished() < AT_ONCE:
                for pipeline in self.dice.choices(list(SHARES), list(SHARES.values()), k=10):
                    getattr(self, pipeline)()
                    self.fed[pipeline] += 1
            if time.monotonic() - sampled >= SAMPLE_SECONDS:
                sampled = time.monotonic()
                self.sample()
            time.sleep(0.2)

    def unfinished(self) -> int:
        query = """
            select (select count(*) from work_items where state in ('waiting', 'claimed'))
                + (select count(*) from pending_images where status in ('pending', 'processed'))
                + (select count(*) from job_instances where status in ('queued', 'running'))
        """
        return int(rows(self.stack, query)[0][0])

    def media(self) -> None:
        name = self.dice.choice(("profile_image", "product_image", "event_image", "site_image"))
        self.stack.request("PATCH", "/users/me", headers=self._user(), files={name: ("a.jpg", self._picture())})

    def listings(self) -> None:
        files, data = {"images": ("a.jpg", self._picture())}, {"listing_title": "A bicycle"}
        self.stack.request("POST", "/api/upload/listing_image", headers=self._user(), data=data, files=files)

    def auto_marker(self) -> None:
        environment, customer = self.stack.environment, f"soak-{self.dice.randrange(20)}"
        documents = Documents(environment["MONGODB_URL"], database=environment["MONGODB_DATABASE"])
        address = f"https://example.com/{self.fed['auto_marker']}.jpg"
        news = {"customer_id": customer, "title": "News", "image": address, "short_summary": "What happened."}
        documents.collection("news_document").insert_one(news)
        documents.close()
        self.stack.request("POST", "/api/jobs/trigger", headers={"X-Customer-ID": customer})

    def vision_reports(self) -> None:
        standins(self.stack, "POST", "vision-analyses", {"organization_id": "soak"})
        self.stack.request("POST", f"/cron-jobs/{self.cron_job}/run", headers=self.stack.admin_headers())

    def avatars(self) -> None:
        wanted = {"count": 1, "brief": "A baker", "seed": self.fed["avatars"] + 1}
        self.stack.request("POST", "/api/avatars/tasks", json=wanted, headers=self.stack.admin_headers())

    def _picture(self) -> bytes:
        """A small picture, one in a hundred of them cut off, which may be refused."""
        colours = np.random.default_rng(self.dice.randrange(1 << 30)).integers(0, 256, (6, 9, 3), dtype=np.uint8)
        out = io.BytesIO()
        Image.fromarray(colours).resize((900, 600), Image.Resampling.BICUBIC).save(out, "JPEG")
        bad = self.dice.random() < FAULTS
        self.broken += bad
        return out.getvalue()[: len(out.getvalue()) // 3] if bad else out.getvalue()

    def _user(self) -> dict[str, str]:
        return self.stack.user_headers(self.dice.randrange(1, 200))

    def sample(self) -> None:
        """Megabytes of their own, by part; runs come and go and are told apart."""
        found: defaultdict[str, float] = defaultdict(float)
        running = stackfile.read(self.data)
        assert running is not None
        parts = [{"name": "supervisor", "pid": running.pid}, *running.parts]
        for part in parts:
            with suppress(psutil.NoSuchProcess):
                process = psutil.Process(part["pid"])
                children = [] if part["name"] == "supervisor" else process.children(recursive=True)
                for member in [process, *children]:
                    run = part["name"] == "dagster-daemon" and member.pid != process.pid
                    found["runs" if run else part["name"]] += member.memory_full_info().uss / 2**20
        self.samples.append((self.fed.total(), dict(found)))

    def tell_memory(self) -> None:
        """The slope is that of the second half, in MB for each 1,000 uploads."""
        half = self.samples[len(self.samples) // 2 :]
        for name in sorted({name for _, memory in self.samples for name in memory}):
            values = [memory.get(name, 0.0) for _, memory in self.samples]
            late = [(uploads, memory[name]) for uploads, memory in half if name in memory]
            slope = 0.0
            if len({uploads for uploads, _ in late}) > 1:
                slope = 1000 * statistics.linear_regression(*zip(*late, strict=True)).slope
            print(f"{name:20} MB: median {statistics.median(values):.0f}, most {max(values):.0f}, slope {slope:+.2f}")


def tell_orphans(data: Path) -> None:
    command = [sys.executable, "-m", "imgpipe_orchestration.cli", "gc", "--json"]
    command += ["--grace-hours", "0", "--data", str(data)]
    found = json.loads(subprocess.run(command, capture_output=True, text=True, check=False).stdout)
    bar("objects without rows", sum(one["garbage"] for one in found), 0)
    bar("rows without objects", sum(one["missing"] for one in found), 0)


if __name__ == "__main__":
    main()
