"""An analysis backend on loopback that does what a test tells it."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from typing import Any

from imgpipe_orchestration_tests.partners.wire import Server, reply, serving


class Backend:
    """Its state: the batches it was given, and how it answers."""

    def __init__(self) -> None:
        self.server: Server
        self.status: dict[str, Any] = {"status": "completed", "done": 1, "total": 1}
        self.status_status = 200
        self.report = b"<!doctype html><title>report</title>"
        self.report_status = 200
        self.orders: dict[str, dict[str, Any]] = {}
        self.images = 0
        self.image_refusals: dict[int, int] = {}
        """By the number of an image, from 1: the status with which it is refused."""
        self.image_ids: dict[int, Any] = {}
        """By the number of an image: what is told for its id."""

    @property
    def url(self) -> str:
        return self.server.url

    def asked(self, part: str) -> int:
        """How many requests had this in their path."""
        return sum(part in path for path in self.server.paths)

    def behave(self, handler: BaseHTTPRequestHandler, number: int) -> None:
        path, headers, body = self.server.requests[number]
        if path == "/batch-analysis/images":
            self.images += 1
            if status := self.image_refusals.get(self.images):
                return reply(handler, b"{}", status)
            image_id = self.image_ids.get(self.images, f"image-{self.images}")
            return _json(handler, {"images": [{"image_id": image_id}]})
        if path == "/batch-analysis/batches":
            batch_id = f"batch/{len(self.orders)}"
            known = {order["key"]: name for name, order in self.orders.items()}
            batch_id = known.get(headers["idempotency-key"], batch_id)
            self.orders[batch_id] = {"key": headers["idempotency-key"], **json.loads(body)}
            return _json(handler, {"batch_id": batch_id, "status": "queued"})
        if path.endswith("/report"):
            return reply(handler, self.report, self.report_status, Content_Type="text/html")
        if path.startswith("/batch-analysis/batches/"):
            return _json(handler, self.status, self.status_status)
        return reply(handler, b"{}", 404)


def _json(handler: BaseHTTPRequestHandler, value: Any, status: int = 200) -> None:
    reply(handler, json.dumps(value).encode(), status, Content_Type="application/json")


@contextmanager
def backend_serving() -> Iterator[Backend]:
    backend = Backend()
    with serving(backend.behave) as server:
        backend.server = server
        yield backend
