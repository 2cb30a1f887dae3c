"""How every stand-in refuses: its handlers raise a `Refusal`, which `app` turns into the answer."""

from __future__ import annotations

from typing import Any


class Refusal(Exception):
    """An answer with an error status.

    Args:
        body: JSON in the shape of the provider's errors.
    """

    def __init__(self, status: int, body: dict[str, Any]) -> None:
        super().__init__(body)
        self.status = status
        self.body = body
