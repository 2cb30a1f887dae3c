"""The OpenAI SDK on our own `connections`.

The SDK's timeout applies to each read, so a server that drips could occupy a worker for ever; and its objects do not
have the rate-limit headers of successful answers.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import httpx2

from imgpipe_orchestration.partners.connections import Connections
from imgpipe_orchestration.partners.retry import Deadline, RateGate
from imgpipe_orchestration.telemetry import tracing

_TRANSFER_HEADERS = frozenset({b"content-encoding", b"content-length", b"transfer-encoding"})
_call: ContextVar[tuple[RateGate, Deadline]] = ContextVar("call")
"""The call that is being made; the SDK has no way to pass it on to the transport."""


@contextmanager
def watching(rate: RateGate, deadline: Deadline) -> Iterator[None]:
    """Answers to what is sent in the block teach `rate`, and must be complete by `deadline`."""
    token = _call.set((rate, deadline))
    try:
        yield
    finally:
        _call.reset(token)


class WatchedTransport(httpx2.BaseTransport):
    """The transport, for what is sent within `watching`. Our errors from it are the `__cause__` of the SDK's."""

    def __init__(self, base_url: str, name: str) -> None:
        self._name = name
        self._connections = Connections(base_url)

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        """
        Raises:
            PartnerAway, PartnerUnavailable, UnreadableAnswer: see `Connections.ask`; also an answer that is not JSON.
        """
        rate, deadline = _call.get()
        request.headers.update(tracing.headers())
        reply = self._connections.ask(request, deadline, partner=self._name)
        rate.learn(reply.status, reply.headers)
        raw = httpx2.Headers(reply.headers).raw
        headers = [(name, value) for name, value in raw if name.lower() not in _TRANSFER_HEADERS]
        answer = httpx2.Response(reply.status, headers=headers, content=reply.content)
        if answer.is_success and not request.url.path.endswith("/content"):  # a batch's results, one JSON a line
            reply.json(self._name)
            # Some servers declare a wrong type, and the SDK would then return the JSON as text.
            answer.headers["content-type"] = "application/json"
        return answer

    def close(self) -> None:
        self._connections.close()
