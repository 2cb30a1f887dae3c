"""One MongoDB server after the other, and documents to mark."""

from typing import Any

from imgpipe_orchestration.wiring.services import Services
from imgpipe_orchestration_tests.mongo_servers import any_mongo, any_mongo_url, documents, faithful_server, own_mongo

__all__ = ["any_mongo", "any_mongo_url", "documents", "faithful_server", "own_mongo"]


def seed(services: Services, customer: Any, count: int = 1, **fields: Any) -> list[Any]:
    """Insert pending documents; returns their ids, oldest first."""
    rows = [
        {"customer_id": customer, "image": f"https://example.com/{n}.jpg", "short_summary": f"news {n}", **fields}
        for n in range(count)
    ]
    return list(services.documents.collection("news_document").insert_many(rows).inserted_ids)


def marked(services: Services, customer: Any) -> int:
    """How many of a customer's documents are marked, looked at one by one."""
    rows = list(services.documents.collection("news_document").find({"customer_id": customer}))
    return sum(1 for row in rows if row.get("clean_image") and row.get("auto_marked_cleaned"))
