"""What tests and benches ask of the stand-ins: journal of calls, seeded faults, delays, rate limits."""

import asyncio
import random
import time
from collections import Counter, deque
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr


class Kind(StrEnum):
    """The ways in which a partner can fail."""

    UNAUTHORIZED = "unauthorized"  # 401
    FORBIDDEN = "forbidden"  # 403
    NOT_FOUND = "not_found"  # 404
    RATE_LIMIT = "rate_limit"  # 429 with Retry-After and, from OpenAI, rate-limit headers
    SERVER_ERROR = "server_error"  # 500, or `status`
    INSUFFICIENT_QUOTA = "insufficient_quota"  # OpenAI's other 429
    CONTENT_POLICY = "content_policy"  # 400 from images, a refusal from responses
    SLOW = "slow"  # the right answer after `seconds`, or once the fault is withdrawn
    DRIP = "drip"  # the right answer, a byte at a time, over `seconds`
    TRUNCATED_JSON = "truncated_json"  # 200 with half of the body, complete as HTTP
    CUT = "cut"  # the connection ends half way through the body
    NOT_JSON = "not_json"  # 200 with an HTML page
    WRONG_SHAPE = "wrong_shape"  # 200 with JSON of another shape
    INVALID_ANSWER = "invalid_answer"  # right protocol, but what the model wrote breaks the schema
    TRUNCATED_BASE64 = "truncated_base64"  # image data that is cut off
    BLANK_IMAGE = "blank_image"  # one flat colour
    SINGLE_IMAGE = "single_image"  # one picture where a grid was asked for
    HALF_GRID = "half_grid"  # 2x1 instead of 2x2
    EXPIRED = "expired"  # a batch that ends after the first half of its requests
    CANCELLED = "cancelled"  # the same, as if somebody had cancelled it
    FAILED = "failed"  # a batch whose file is refused
    MISSING_LINES = "missing_lines"  # a completed batch that says nothing of the second half of its requests
    REDIRECT = "redirect"  # 302 to `location`
    HUGE_FILE = "huge_file"  # `size` bytes
    ENDLESS_PAGES = "endless_pages"  # a listing that repeats itself and never ends


OF_BATCHES = frozenset({Kind.EXPIRED, Kind.CANCELLED, Kind.FAILED, Kind.MISSING_LINES})
"""Those that the batches themselves look at."""


class Fault(BaseModel):
    """One seeded fault. It hits calls of `provider` (and `operation`) whose body or path contains `match`."""

    model_config = ConfigDict(extra="forbid")

    provider: Literal["openai", "google", "flowise", "vision_analysis", "files"]
    kind: Kind
    operation: str | None = None
    match: str | None = None
    count: int | None = Field(1, ge=1, description="How many calls it hits; null for all.")
    probability: float = Field(1.0, gt=0, le=1)
    after: int = Field(0, ge=0, description="Calls let through first.")
    retry_after: float = Field(1.0, ge=0)
    status: int = 500
    seconds: float = 5.0
    location: str = ""
    size: int = 200 * 1024 * 1024
    hits: int = 0
    seen: int = 0
    _withdrawn: asyncio.Event = PrivateAttr(default_factory=asyncio.Event)

    @property
    def withdrawn(self) -> asyncio.Event:
        """Set once the fault is withdrawn."""
        return self._withdrawn


class Limit(BaseModel):
    """At most `requests` in any `seconds`: past it the provider answers 429, as the real one does."""

    model_config = ConfigDict(extra="forbid")

    requests: int = Field(ge=1)
    seconds: float = Field(gt=0)


@dataclass
class Call:
    """One line of the journal."""

    at: float
    provider: str
    operation: str
    input_hash: str = ""
    model: str = ""
    status: int = 0
    note: dict[str, Any] = field(default_factory=dict)


class Control:
    """State of one server. All access is from its event loop."""

    def __init__(self) -> None:
        self.faults: list[Fault] = []
        self.reset()

    def reset(self) -> None:
        """As newly started."""
        self.withdraw_faults()
        self.delays: dict[str, float] = {}
        self.calls: deque[Call] = deque(maxlen=20_000)
        self.limits: dict[str, Limit] = {}
        self.in_flight: Counter[str] = Counter()
        self.most_in_flight: Counter[str] = Counter()
        self._windows: dict[str, deque[float]] = {}
        self._dice = random.Random(0)

    def enter(self, call: Call) -> None:
        """Write a call down as it arrives."""
        self.calls.append(call)
        self.in_flight[call.provider] += 1
        self.most_in_flight[call.provider] = max(self.most_in_flight[call.provider], self.in_flight[call.provider])

    def leave(self, call: Call, status: int) -> None:
        """Write down how a call ended; status 0 means that the client went away."""
        call.status = status
        self.in_flight[call.provider] -= 1

    def fault_for(
        self, provider: str, operation: str, searched: bytes, *, among: frozenset[Kind] = frozenset()
    ) -> Fault | None:
        """The first seeded fault that hits this call, counted as a hit.

        Args:
            among: only these; else all but those that batches look at themselves.
        """
        for fault in self.faults:
            if fault.kind not in among if among else fault.kind in OF_BATCHES:
                continue
            if fault.provider != provider or fault.operation not in (None, operation):
                continue
            if fault.match is not None and fault.match.encode() not in searched:
                continue
            if fault.count is not None and fault.hits >= fault.count:
                continue
            fault.seen += 1
            if fault.seen <= fault.after or self._dice.random() >= fault.probability:
                continue
            fault.hits += 1
            return fault
        return None

    def forget_calls(self) -> None:
        self.calls.clear()
        self.most_in_flight.clear()

    def withdraw_faults(self) -> None:
        for fault in self.faults:
            fault.withdrawn.set()
        self.faults.clear()

    def delay_for(self, provider: str, operation: str) -> float:
        """Seconds an answer takes; the longer name wins."""
        return self.delays.get(f"{provider}.{operation}", self.delays.get(provider, 0.0))

    def limited(self, provider: str) -> tuple[dict[str, str], bool]:
        """The headers of a provider that has a limit, and whether this call, which counts, is past it."""
        limit = self.limits.get(provider)
        if limit is None:
            return {}, False
        window = self._windows.setdefault(provider, deque())
        now = time.monotonic()
        while window and window[0] <= now - limit.seconds:
            window.popleft()
        refused = len(window) >= limit.requests
        reset = limit.seconds - (now - window[0] if window else 0)
        if not refused:
            window.append(now)
        headers = {
            "x-ratelimit-limit-requests": str(limit.requests),
            "x-ratelimit-remaining-requests": str(limit.requests - len(window)),
            "x-ratelimit-reset-requests": f"{reset * 1000:.0f}ms",
        }
        return headers | ({"Retry-After": f"{reset:.2f}"} if refused else {}), refused

    def journal(self, provider: str | None, operation: str | None) -> dict[str, Any]:
        """The calls so far, oldest first."""
        calls = [
            asdict(call)
            for call in self.calls
            if provider in (None, call.provider) and operation in (None, call.operation)
        ]
        return {"calls": calls, "most_in_flight": dict(self.most_in_flight)}
