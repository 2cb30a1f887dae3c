"""What a check of `imgpipe doctor` is, and how one ends."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

import requests

from imgpipe_orchestration.errors import ImgpipeError, NotMigrated, OutOfSpace
from imgpipe_orchestration.services import Services
from imgpipe_orchestration.telemetry.redaction import redact

MIGRATE = "Run `imgpipe migrate`."
TIMEOUT_SECONDS = 9
"""Longer than `GET /health` takes to report a frozen server (`health.ANSWER_SECONDS`)."""
_REMEDIES = {NotMigrated: MIGRATE, OutOfSpace: "Make room on its disk. What was accepted waits and goes on by itself."}


class Verdict(StrEnum):
    """How a check ended."""

    OK = "ok"
    NOTE = "note"  # works, and somebody should know
    BAD = "bad"  # does not work


@dataclass(frozen=True)
class Finding:
    """One thing looked at, what was seen, and what to do about it."""

    what: str
    verdict: Verdict
    seen: str
    do: str = ""


class Bad(Exception):
    """Ends a check; `do` replaces the check's usual advice."""

    verdict = Verdict.BAD

    def __init__(self, seen: str, do: str = "") -> None:
        super().__init__(seen)
        self.do = do


class Note(Bad):
    """Ends a check of what works."""

    verdict = Verdict.NOTE


@dataclass(frozen=True)
class Check:
    """Looks at one thing. Never raises: what `look` raises is the finding.

    Attributes:
        do: advice for when `look` raises.
        look: returns what it saw when all is well.
    """

    what: str
    do: str
    look: Callable[[Services], str]

    def __call__(self, services: Services) -> Finding:
        verdict, do = Verdict.BAD, self.do
        try:
            return Finding(self.what, Verdict.OK, self.look(services))
        except Bad as ended:
            verdict, seen, do = ended.verdict, str(ended), ended.do or do
        except ImgpipeError as error:
            seen, do = f"{error.public} {error.detail or ''}".strip(), _REMEDIES.get(type(error), do)
        except requests.RequestException as error:
            where = error.request.url if error.request is not None else "there"
            seen = f"no answer from {where} ({type(error).__name__})"
        except Exception as error:  # drivers raise all kinds of exceptions
            seen = f"{type(error).__name__}: {error}"
        return Finding(self.what, verdict, redact(seen), do)
