"""The interface of the demo's scenarios, and the stack as they see it."""

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


@dataclass
class Progress:
    """How far a scenario is."""

    done: int
    """Items that arrived."""
    waiting_for: str = ""
    failures: list[str] = field(default_factory=list)
    """One line for each item that will not arrive: which, and why."""


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

    def user_headers(self, user_id: int) -> dict[str, str]:
        """`Authorization` of a user, signed with USER_JWT_SECRET as the front end's sign-in would."""
        import jwt

        claims = {"sub": str(user_id), "iat": int(time.time()), "exp": int(time.time()) + 3600}
        return {"Authorization": f"Bearer {jwt.encode(claims, self.environment['USER_JWT_SECRET'], 'HS256')}"}

    def admin_headers(self) -> dict[str, str]:
        """`Authorization` of an operator."""
        return {"Authorization": f"Bearer {self.environment['ADMIN_API_KEY']}"}

    def dagster(self, path: str) -> str:
        """A page of the Dagster UI."""
        return self.environment["DAGSTER_URL"] + path


class Scenario(ABC):
    """One pipeline's part of the demo. Holds its own state between the calls."""

    pipeline: ClassVar[str]
    items: ClassVar[int]
    """How many items should arrive, those included that are refused on purpose."""
    seconds: ClassVar[float] = 180
    """How long it may take before the demo gives it up."""

    def __init__(self, stack: Stack) -> None:
        self.stack = stack

    @abstractmethod
    def feed(self) -> None:
        """Put in the work."""

    @abstractmethod
    def look(self) -> Progress:
        """How far it is. Called about twice a second; raises nothing but ImgpipeError and requests' exceptions."""

    def close(self) -> None:
        """Release what it holds; `look` is not called again."""
        return

    def refused(self) -> list[Refusal]:
        """What the demo got refused on purpose, as far as it was checked."""
        return []

    @abstractmethod
    def exhibits(self) -> list[Exhibit]:
        """What went in and what came out, for the demo's page. Called once, at the end."""

    @abstractmethod
    def links(self) -> list[str]:
        """Addresses of something that came out, and of the pipeline in the Dagster UI."""
