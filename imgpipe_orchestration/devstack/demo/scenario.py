"""The interface of the demo's scenarios, and the stack as they see it."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import requests

from imgpipe_orchestration.errors import BadInput


@dataclass
class Progress:
    """How far a scenario is."""

    done: int
    """Items that arrived."""
    waiting_for: str = ""
    failures: list[str] = field(default_factory=list)
    """One line for each item that will not arrive: which, and why."""


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
    seconds: ClassVar[float] = 180
    """How long it may take before the demo gives it up."""

    def __init__(self, stack: Stack) -> None:
        self.stack = stack

    @abstractmethod
    def feed(self) -> int:
        """Put in the work; returns how many items should arrive."""

    @abstractmethod
    def look(self) -> Progress:
        """How far it is. Called about twice a second; raises nothing but ImgpipeError and requests' exceptions."""

    def close(self) -> None:
        """Release what it holds; `look` is not called again."""
        return

    @abstractmethod
    def links(self) -> list[str]:
        """What to open afterwards: something that came out, and the pipeline in the Dagster UI."""
