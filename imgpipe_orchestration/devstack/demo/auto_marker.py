"""Three customers' news: one new, one who turned marking off, one whose documents are partly broken."""

import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

from imgpipe_orchestration.devstack.demo.scenario import Exhibit, Result, Stack
from imgpipe_orchestration.storage.documents import Documents, reachable

_EXPECTED = {"new": (25, 0), "opted-out": (0, 0), "broken": (3, 2)}
"""Documents marked and failed, by customer."""
_REFUSED = {
    "5 news documents of a customer": "the customer has automatic marking off",
    "2 news documents": "their image is an object where an address belongs",
}


def auto_marker(stack: Stack, result: Result) -> Iterator[None]:
    """Editors' documents in MongoDB, then `POST /api/jobs/trigger` for each customer until the jobs are over.

    An item is a document that should get its clean image, and each of the three customers' jobs.
    """
    result.items = sum(marked for marked, _ in _EXPECTED.values()) + len(_EXPECTED)
    # Customers of this moment: a second demo on the same data brings its own.
    customers = {kind: f"demo-{int(time.time())}-{kind}" for kind in _EXPECTED}
    with _news(stack) as news:
        for kind, customer in customers.items():
            news.insert_many(_documents(customer, *_EXPECTED[kind]))
    off = f"/api/customers/{customers['opted-out']}/image-config"
    stack.accepted("PUT", off, json={"auto_mark_cleaned": False})
    jobs: dict[str, str] = {}
    for kind, customer in customers.items():
        headers = {"X-Customer-ID": customer, "X-User-ID": "demo"}
        jobs[kind] = stack.accepted("POST", "/api/jobs/trigger", headers=headers).json()["job_id"]
    result.refused = _REFUSED
    while not result.settled:
        over = marked = 0
        result.failures = []
        for kind, customer in customers.items():
            with _news(stack) as news:
                rows = list(news.find({"customer_id": customer}))
            done = sum(bool(row.get("auto_marked_cleaned")) and row.get("clean_image") == row["image"] for row in rows)
            marked += done
            job = stack.operated("GET", f"/api/jobs/{jobs[kind]}")
            if job["status"] in {"completed", "failed"}:
                seen = (job["images_marked"], job["images_failed"])
                if seen == _EXPECTED[kind] and done == seen[0]:
                    over += 1
                else:
                    told = f"{kind}: marked and failed {seen}, {done} in MongoDB; {job['error']}"
                    result.failures.append(told)
        result.arrived, result.waiting_for = marked + over, f"{len(_EXPECTED) - over} jobs"
        yield
    with _news(stack) as news:
        row = news.find_one({"customer_id": customers["new"]}) or {}
    fields = ("title", "image", "clean_image", "auto_marked_cleaned")
    facts = {name: str(row[name]) for name in fields if name in row}
    result.exhibits = [Exhibit("A news document afterwards", facts=facts)]


@contextmanager
def _news(stack: Stack) -> Iterator[Any]:
    documents = Documents(stack.environment["MONGODB_URL"], database=stack.environment["MONGODB_DATABASE"])
    with closing(documents), reachable():
        yield documents.collection("news_document")


def _documents(customer: str, marked: int, failed: int) -> list[dict[str, Any]]:
    """So many good documents, then so many whose image is none; five of a customer without either."""
    rows: list[dict[str, Any]] = []
    for number in range(marked + failed or 5):
        address = f"https://example.com/{customer}/{number}.jpg"
        image: Any = {"href": address} if failed and number >= marked else address
        texts = {"title": f"News {number}", "short_summary": "What happened, in a sentence."}
        rows.append({"customer_id": customer, "image": image, **texts})
    return rows
