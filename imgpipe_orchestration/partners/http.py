"""JSON over HTTP to partners without a light library of their own.

Redirects are not followed, as a bearer key must not be sent to another host. Answers are limited in size and in total
time, so that a server cannot drip a byte a second. Cookies and .netrc are ignored.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from imgpipe_orchestration.errors import PartnerAway
from imgpipe_orchestration.partners.reply import ANSWER_LIMIT, Reply
from imgpipe_orchestration.partners.retry import Deadline, RetryPolicy, call, gate
from imgpipe_orchestration.partners.ssrf import Guard
from imgpipe_orchestration.telemetry import tracing

if TYPE_CHECKING:
    from imgpipe_orchestration.partners.connections import Connections


class Connected:
    """Keeps connections, which are made at the first request."""

    def __init__(self, base_url: str, guard: Guard | None) -> None:
        self.base_url = base_url
        self._guard = guard

    @cached_property
    def _connections(self) -> Connections:
        from imgpipe_orchestration.partners.connections import Connections

        return Connections(self.base_url, self._guard)

    def close(self) -> None:
        """Close the connections."""
        if connections := self.__dict__.pop("_connections", None):
            connections.close()


class JsonApi(Connected):
    """One partner's base address with its credentials."""

    def __init__(
        self,
        partner: str,
        base_url: str,
        *,
        headers: Mapping[str, str] | None = None,
        timeout: float = 60.0,
        policy: RetryPolicy | None = None,
        guard: Guard | None = None,
        paid: bool = False,
    ) -> None:
        """
        Args:
            headers: sent with every request, credentials among them.
            timeout: seconds for one try, from sending to the last byte of the answer.
            policy: tries and time for all of them; default three within twice the timeout.
            guard: restricts addresses; needed where the URL comes from a tenant and not from the operator.
            paid: see `retry.call`.
        """
        super().__init__(base_url, guard)
        self.partner = partner
        self.timeout = timeout
        self.policy = policy or RetryPolicy(budget=2 * timeout)
        self._headers = dict(headers or {})
        self._paid = paid

    def request(
        self,
        method: str,
        path: str,
        *,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        limit: int = ANSWER_LIMIT,
    ) -> Reply:
        """Send a request and return the answer; failures that may pass are retried.

        Args:
            path: appended to the base address, which is used as it was configured if this is empty or only a query.
            limit: largest accepted answer, bytes.

        Raises:
            PartnerRefused: 3xx, and 4xx except 408, 425 and 429.
            RateLimited: 429 until the tries or the time were used up.
            UnreadableAnswer, AnswerTooLong: see `Connections.ask`.
            PartnerAway: no connection, or 5xx.
            PartnerStumbled, SpendingPaused: a paid partner's 5xx that says so.
            PartnerUnavailable: too slow, or cut off.
            Forbidden: the guard refuses the address.
        """
        import httpx2  # takes 0.15 s, and definitions import this module

        rate = gate(self.partner, self.base_url, *self._headers.values())
        base = self.base_url.rstrip("/") if path.startswith("/") else self.base_url
        connections = self._connections  # before the time begins to run

        def attempt(deadline: Deadline) -> Reply:
            rate.enter(deadline, partner=self.partner)
            until = Deadline(min(self.timeout, deadline.remaining))
            with tracing.span(f"{method} {self.partner}", "client") as span:
                sent = {**self._headers, **(headers or {}), **tracing.headers()}
                try:
                    asked = httpx2.Request(method, base + path, headers=sent, content=body)
                except (httpx2.InvalidURL, ValueError) as error:
                    raise PartnerAway(f"{self.partner} could not be reached (its address is not a URL)") from error
                reply = connections.ask(asked, until, partner=self.partner, limit=limit)
                tracing.note(span, status=reply.status)
            rate.learn(reply.status, reply.headers)
            reply.refuse_bad_status(self.partner, paid=self._paid)
            return reply

        return call(attempt, self.policy, paid=self._paid)

    def request_json(self, method: str, path: str, *, json_body: Any = None, **options: Any) -> Any:
        """`request` with JSON both ways.

        Raises:
            UnreadableAnswer: the answer is not JSON (truncated, an HTML error page); else as `request`.
        """
        body = None if json_body is None else json.dumps(json_body).encode()
        headers = {**options.pop("headers", {}), "Accept": "application/json"}
        if body is not None:
            headers["Content-Type"] = "application/json"
        return self.request(method, path, body=body, headers=headers, **options).json(self.partner)


def at_host(partner: str, url: str) -> str:
    """The partner's name with the host of its address, for a partner whose address each tenant sets."""
    return f"{partner} at {urlsplit(url).netloc.rpartition('@')[2]}"
