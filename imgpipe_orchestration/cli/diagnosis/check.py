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


class NotOk(Exception):
    """Ends a check with another verdict than OK; `do` replaces the check's usual advice."""

    verdict: Verdict

    def __init__(self, seen: str, do: str = "") -> None:
        super().__init__(seen)
        self.do = do


class Note(NotOk):
    """Ends a check with NOTE."""

    verdict = Verdict.NOTE


class Bad(NotOk):
    """Ends a check with BAD."""

    verdict = Verdict.BAD


@dataclass(frozen=True)
class Check:
    """Looks at one thing. Never raises: what `look` raises is the finding."""

    what: str
    do: str
    """Advice for when `look` raises."""
    look: Callable[[Services], str]
    """Returns what it saw when all is well."""

    def __call__(self, services: Services) -> Finding:
        try:
            return Finding(self.what, Verdict.OK, self.look(services))
        except NotOk as ended:
            return Finding(self.what, ended.verdict, str(ended), ended.do or self.do)
        except ImgpipeError as error:
            do = next((do for kind, do in _REMEDIES.items() if isinstance(error, kind)), self.do)
            return Finding(self.what, Verdict.BAD, redact(f"{error.public} {error.detail or ''}".strip()), do)
        except requests.RequestException as error:
            where = redact(str(error.request.url)) if error.request is not None else "there"
            return Finding(self.what, Verdict.BAD, f"no answer from {where} ({type(error).__name__})", self.do)
        except Exception as error:  # drivers raise all kinds of exceptions
            return Finding(self.what, Verdict.BAD, redact(f"{type(error).__name__}: {error}"), self.do)
