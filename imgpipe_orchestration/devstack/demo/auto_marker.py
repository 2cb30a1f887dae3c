"""Three customers' news: one new, one who turned marking off, one whose documents are partly broken."""

from __future__ import annotations

import time
from typing import Any

from imgpipe_orchestration.devstack.demo.scenario import Exhibit, Progress, Refusal, Scenario, Stack
from imgpipe_orchestration.storage.documents import Documents, reachable

_MARKED = 25
_BROKEN = 2
_OFF = 5


class AutoMarkerScenario(Scenario):
    """Editors' documents in MongoDB, then `POST /api/jobs/trigger` for each customer until the jobs are over.

    An item is a document that should get its clean image, and each of the three customers' jobs.
    """

    pipeline = "auto_marker"
    items = _MARKED + 3 + 3

    def __init__(self, stack: Stack) -> None:
        super().__init__(stack)
        # Customers of this moment: a second demo on the same data brings its own.
        moment = int(time.time())
        self.new, self.off, self.broken = (f"demo-{moment}-{kind}" for kind in ("new", "opted-out", "broken"))
        self._jobs: dict[str, str] = {}
        self._seen: dict[str, dict[str, Any]] = {}
        self._documents = Documents(stack.environment["MONGODB_URL"], database=stack.environment["MONGODB_DATABASE"])

    def feed(self) -> None:
        self._insert(self.new, _MARKED)
        self._insert(self.off, _OFF)
        self._insert(self.broken, 3)
        self._insert(self.broken, _BROKEN, image={"href": "https://example.com/not-text.jpg"})
        self.stack.accepted("PUT", f"/api/customers/{self.off}/image-config", json={"auto_mark_cleaned": False})
        for customer in (self.new, self.off, self.broken):
            headers = {"X-Customer-ID": customer, "X-User-ID": "demo"}
            answer = self.stack.accepted("POST", "/api/jobs/trigger", headers=headers)
            self._jobs[customer] = answer.json()["job_id"]

    def look(self) -> Progress:
        self._seen = jobs = {c: self.stack.accepted("GET", f"/api/jobs/{job}").json() for c, job in self._jobs.items()}
        over = {customer: job for customer, job in jobs.items() if job["status"] in {"completed", "failed"}}
        marked = self._marked(self.new) + self._marked(self.broken)
        failures = [reason for customer, job in over.items() if (reason := self._wrong(customer, job))]
        return Progress(marked + len(over) - len(failures), f"{len(jobs) - len(over)} jobs", failures)

    def close(self) -> None:
        self._documents.close()

    def _wrong(self, customer: str, job: dict[str, Any]) -> str:
        """What is not as it should be with a job that is over."""
        expected = {self.new: (_MARKED, 0), self.off: (0, 0), self.broken: (3, _BROKEN)}[customer]
        seen = (job["images_marked"], job["images_failed"])
        if seen != expected:
            return f"{customer}: marked and failed {seen}, not {expected}; {job['error']}"
        if customer == self.off and self._marked(customer):
            return f"{customer}: marked although it is off"
        return ""

    def _insert(self, customer: str, count: int, **fields: Any) -> None:
        rows = [
            {
                "customer_id": customer,
                "title": f"News {n}",
                "image": f"https://example.com/{customer}/{n}.jpg",
                "short_summary": "What happened, in a sentence.",
                **fields,
            }
            for n in range(count)
        ]
        with reachable():
            self._documents.collection("news_document").insert_many(rows)

    def _marked(self, customer: str) -> int:
        with reachable():
            rows = list(self._documents.collection("news_document").find({"customer_id": customer}))
        return sum(1 for row in rows if row.get("auto_marked_cleaned") and row.get("clean_image") == row["image"])

    def refused(self) -> list[Refusal]:
        broken, off = self._seen.get(self.broken, {}), self._seen.get(self.off, {})
        found = []
        if broken.get("images_failed"):
            found.append(Refusal(f"{_BROKEN} news documents", "their image is an object where an address belongs"))
        if off.get("status") == "completed":
            found.append(Refusal(f"{_OFF} news documents of a customer", "the customer has automatic marking off"))
        return found

    def exhibits(self) -> list[Exhibit]:
        with reachable():
            row = self._documents.collection("news_document").find_one({"customer_id": self.new}) or {}
        fields = ("title", "image", "clean_image", "auto_marked_cleaned")
        marks: dict[str, str] = {name: str(row[name]) for name in fields if name in row}
        jobs = [
            Exhibit(
                f"The job of {customer}", [], {"Marked": str(job["images_marked"]), "Failed": str(job["images_failed"])}
            )
            for customer, job in self._seen.items()
        ]
        return [Exhibit("A news document afterwards", [], marks), *jobs]

    def links(self) -> list[str]:
        gateway = self.stack.environment["GATEWAY_URL"]
        return [
            f"{gateway}/api/jobs/{self._jobs[self.broken]}",
            self.stack.dagster("/assets/clean_images"),
        ]


SCENARIO = AutoMarkerScenario
