"""What the demo's scenarios share: what they tell, and the stack as they see it."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import jwt
import requests
from requests.adapters import HTTPAdapter
from urllib3 import Retry

from imgpipe_orchestration.errors import BadInput

SECONDS = 240
"""How long a scenario may take before the demo gives it up."""


@dataclass(frozen=True)
class Exhibit:
    """One thing that went in and came out, for the demo's page."""

    title: str
    pictures: dict[str, bytes] = field(default_factory=dict)
    """Image files, each by what to say of it; what went in first, then what came out."""
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
    began: float = field(default_factory=time.monotonic)
    seconds: float = 0.0
    """From the first request to the last arrival."""
    waiting_for: str = ""
    failures: list[str] = field(default_factory=list)
    """One line for each item that will not arrive: which, and why."""
    refused: dict[str, str] = field(default_factory=dict)
    """On purpose, to show what a refusal looks like: what, and why."""
    failed_on_purpose: int = 0
    """How many of those are items that `imgpipe status` counts as failed."""
    exhibits: list[Exhibit] = field(default_factory=list)
    finished: bool = False

    @property
    def settled(self) -> bool:
        """Whether there is nothing more to wait for: everything arrived or failed, or it takes too long."""
        late = time.monotonic() - self.began > SECONDS
        return late or self.arrived + len(self.failures) >= self.items

    @property
    def failed(self) -> int:
        return len(self.failures) + self.failed_on_purpose

    @property
    def ok(self) -> bool:
        return self.finished and not self.failures and self.items > 0 and self.arrived == self.items


class Stack:
    """The running stack as an outside client sees it."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        """
        Args:
            environment: as `imgpipe env` prints it.
        """
        self.environment = environment
        self.http = requests.Session()
        # A part of the stack may be starting again.
        again = Retry(6, backoff_factor=0.5, status_forcelist=(502, 503, 504), allowed_methods=["GET"])
        self.http.mount("http://", HTTPAdapter(max_retries=again))

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

    def operated(self, method: str, path: str, body: Any = None) -> Any:
        """The JSON of an operator's accepted request."""
        return self.accepted(method, path, json=body, headers=self.admin_headers()).json()

    def user_headers(self, user_id: int) -> dict[str, str]:
        """`Authorization` of a user, signed with USER_JWT_SECRET as the front end's sign-in would."""
        claims = {"sub": str(user_id), "iat": int(time.time()), "exp": int(time.time()) + 3600}
        return {"Authorization": f"Bearer {jwt.encode(claims, self.environment['USER_JWT_SECRET'], 'HS256')}"}

    def admin_headers(self) -> dict[str, str]:
        """`Authorization` of an operator."""
        return {"Authorization": f"Bearer {self.environment['ADMIN_API_KEY']}"}
