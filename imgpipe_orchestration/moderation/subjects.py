"""What a feature declares about the things that are judged."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

from sqlalchemy import Connection

from imgpipe_orchestration.lifecycle.kind import Kind
from imgpipe_orchestration.services import Services


def _nobody(_: Connection, __: int) -> tuple[int | None, str]:
    """It is no user's, and its row has no hash."""
    return None, ""


def _nothing(_: Services, __: Connection, ___: int) -> None:
    """Nothing else is to be done."""


@dataclass(frozen=True)
class Subject:
    """One kind of things that are judged. Ids are those of its rows."""

    name: str
    kind: Kind
    """Of what it is, or is a part of: rejected things that have a table go into its trash."""
    table: str
    """The table that has `held`; empty for what a later step publishes, which asks `judging.admit` before."""
    content: Callable[[Services, int], bytes | str]
    """The picture or the text to judge and to review.

    Raises:
        Deleted, NotFound: it is not there.
    """
    facts: Callable[[Connection, int], tuple[int | None, str]] = _nobody
    """The user of a thing, and the SHA-256 of its bytes; empty where its row does not have that.

    Raises:
        Deleted, NotFound: it is not there.
    """
    named: Callable[[Connection, int], str] | None = None
    """The name by which the ledger has it, where that is another than `what`."""
    rejected: Callable[[Services, Connection, int], None] = _nothing
    """What else a rejection changes, in its transaction."""

    def what(self, item: int) -> str:
        """The name of a thing, as the ledger and the deletions have it."""
        return f"{self.name}/{item}"


def digest_of(content: bytes | str) -> str:
    """SHA-256 of a picture or a text."""
    return hashlib.sha256(content.encode() if isinstance(content, str) else content).hexdigest()
