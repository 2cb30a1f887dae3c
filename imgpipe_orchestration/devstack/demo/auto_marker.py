"""Three customers' news: one new, one who turned marking off, one whose documents are partly broken."""

import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

from imgpipe_orchestration.devstack.demo.scenario import Exhibit, Scenario, Stack
from imgpipe_orchestration.storage.documents import Documents, reachable

_EXPECTED = {"new": (25, 0), "opted-out": (0, 0), "broken": (3, 2)}
"""Documents marked and failed, by customer."""


class AutoMarkerScenario(Scenario):
    """Editors' documents in MongoDB, then `POST /api/jobs/trigger` for each customer until the jobs are over.

    An item is a document that should get its clean image, and each of the three customers' jobs.
    """

    pipeline = "auto_marker"
    items = sum(marked for marked, _ in _EXPECTED.values()) + len(_EXPECTED)

    def __init__(self, stack: Stack) -> None:
        super().__init__(stack)
        # Customers of this moment: a second demo on the same data brings its own.
        self._prefix = f"demo-{int(time.time())}"
        self._jobs: dict[str, str] = {}

    @contextmanager
    def _news(self) -> Iterator[Any]:
        environment = self.stack.environment
        documents = Documents(environment["MONGODB_URL"], database=environment["MONGODB_DATABASE"])
        with closing(documents), reachable():
            yield documents.collection("news_document")

    def feed(self) -> None:
        rows: list[dict[str, Any]] = []
        for kind, (marked, failed) in _EXPECTED.items():
            customer = f"{self._prefix}-{kind}"
            for number in range(marked + failed or 5):
                address = f"https://example.com/{customer}/{number}.jpg"
                image: Any = {"href": address} if failed and number >= marked else address
                texts = {"title": f"News {number}", "short_summary": "What happened, in a sentence."}
                rows.append({"customer_id": customer, "image": image, **texts})
        with self._news() as news:
            news.insert_many(rows)
        off = f"/api/customers/{self._prefix}-opted-out/image-config"
        self.stack.accepted("PUT", off, json={"auto_mark_cleaned": False})
        for kind in _EXPECTED:
            headers = {"X-Customer-ID": f"{self._prefix}-{kind}", "X-User-ID": "demo"}
            answer = self.stack.accepted("POST", "/api/jobs/trigger", headers=headers)
            self._jobs[kind] = f"/api/jobs/{answer.json()['job_id']}"

    def look(self) -> None:
        result, over, marked = self.result, 0, 0
        result.failures = []
        for kind, expected in _EXPECTED.items():
            with self._news() as news:
                rows = list(news.find({"customer_id": f"{self._prefix}-{kind}"}))
            done = sum(bool(row.get("auto_marked_cleaned")) and row.get("clean_image") == row["image"] for row in rows)
            marked += done
            job = self.stack.operated("GET", self._jobs[kind])
            if job["status"] in {"completed", "failed"}:
                seen = (job["images_marked"], job["images_failed"])
                if seen == expected and done == seen[0]:
                    over += 1
                else:
                    told = f"{kind}: marked and failed {seen}, {done} in MongoDB; {job['error']}"
                    result.failures.append(told)
        result.arrived, result.waiting_for = marked + over, f"{len(_EXPECTED) - over} jobs"
        result.refused = {
            "5 news documents of a customer": "the customer has automatic marking off",
            "2 news documents": "their image is an object where an address belongs",
        }

    def show(self) -> list[Exhibit]:
        with self._news() as news:
            row = news.find_one({"customer_id": f"{self._prefix}-new"}) or {}
        fields = ("title", "image", "clean_image", "auto_marked_cleaned")
        facts = {name: str(row[name]) for name in fields if name in row}
        return [Exhibit("A news document afterwards", facts=facts)]
