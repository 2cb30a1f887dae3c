"""What the demo's scenarios share: what they tell, and the stack as they see it."""

from __future__ import annotations

import io
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import requests

from imgpipe_orchestration.errors import BadInput
from imgpipe_orchestration.web.sizes import size_text


@dataclass(frozen=True)
class Refusal:
    """What the demo sends in the knowledge that it will be refused."""

    what: str
    why: str
    failed: bool = False
    """Whether it is an item of the pipeline, which `imgpipe status` then counts as failed."""


@dataclass(frozen=True)
class Picture:
    """An image file, and what to say of it."""

    data: bytes
    words: str


@dataclass(frozen=True)
class Exhibit:
    """One thing that went in and came out, for the demo's page."""

    title: str
    pictures: list[Picture] = field(default_factory=list)
    """What went in first, then what came out."""
    facts: dict[str, str] = field(default_factory=dict)
    document: str = ""
    """A whole HTML document that came out."""


@dataclass
class Result:
    """One line of the demo's table."""

    pipeline: str
    items: int = 0
    """How many should arrive, those included that are refused on purpose."""
    arrived: int = 0
    seconds: float = 0.0
    """From the first request to the last arrival."""
    waiting_for: str = ""
    failures: list[str] = field(default_factory=list)
    """One line for each item that will not arrive: which, and why."""
    refused: list[Refusal] = field(default_factory=list)
    """On purpose, to show what a refusal looks like."""
    links: list[str] = field(default_factory=list)
    """Of something that came out, and of the pipeline in the Dagster UI."""
    exhibits: list[Exhibit] = field(default_factory=list)
    finished: bool = False

    @property
    def failed(self) -> int:
        """Items that failed, as `imgpipe status` counts them: those that were refused on purpose are among them."""
        return len(self.failures) + sum(refusal.failed for refusal in self.refused)

    @property
    def ok(self) -> bool:
        return self.finished and not self.failures and self.items > 0 and self.arrived == self.items


def picture(data: bytes, role: str) -> Picture:
    """A file as it was sent or served, e.g. `in, 600 x 400, 51 KB`."""
    from PIL import Image

    with Image.open(io.BytesIO(data)) as image:
        return Picture(data, f"{role}, {image.width} x {image.height}, {size_text(len(data))}")


class Stack:
    """The running stack as an outside client sees it."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        """
        Args:
            environment: as `imgpipe env` prints it.
        """
        self.environment = environment
        self.http = requests.Session()

    def request(self, method: str, path: str, **options: Any) -> requests.Response:
        """A request to the gateway.

        Args:
            path: below GATEWAY_URL, or a whole URL.
        """
        url = path if "://" in path else self.environment["GATEWAY_URL"] + path
        return self.http.request(method, url, timeout=30, **options)

    def accepted(self, method: str, path: str, **options: Any) -> requests.Response:
        """A `request` that the demo cannot do without.

        Raises:
            BadInput: it was refused.
        """
        answer = self.request(method, path, **options)
        if not answer.ok:
            raise BadInput(f"{method} {answer.url} answered {answer.status_code}", detail=answer.text)
        return answer

    def asked(self, path: str, **options: Any) -> Any:
        """The JSON of an operator's accepted GET."""
        return self.accepted("GET", path, headers=self.admin_headers(), **options).json()

    def user_headers(self, user_id: int) -> dict[str, str]:
        """`Authorization` of a user, signed with USER_JWT_SECRET as the front end's sign-in would."""
        import jwt

        claims = {"sub": str(user_id), "iat": int(time.time()), "exp": int(time.time()) + 3600}
        return {"Authorization": f"Bearer {jwt.encode(claims, self.environment['USER_JWT_SECRET'], 'HS256')}"}

    def admin_headers(self) -> dict[str, str]:
        """`Authorization` of an operator."""
        return {"Authorization": f"Bearer {self.environment['ADMIN_API_KEY']}"}

    def gateway(self, path: str) -> str:
        return self.environment["GATEWAY_URL"] + path

    def dagster(self, path: str) -> str:
        """A page of the Dagster UI."""
        return self.environment["DAGSTER_URL"] + path


class Scenario(ABC):
    """One pipeline's part of the demo, which tells how far it is in `result`."""

    pipeline: ClassVar[str]
    items: ClassVar[int]
    seconds: ClassVar[float] = 180
    """How long it may take before the demo gives it up."""

    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        self.result = Result(self.pipeline, self.items)

    @abstractmethod
    def feed(self) -> None:
        """Put in the work."""

    @abstractmethod
    def look(self) -> None:
        """See how far it is. Called about twice a second; raises nothing but ImgpipeError and requests' exceptions."""

    @abstractmethod
    def show(self) -> None:
        """At the end: the links and exhibits."""
