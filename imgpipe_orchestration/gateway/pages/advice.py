"""What to do about a failed item, by its error code: above all whether another try can help."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from imgpipe_orchestration.storage.backlog import Attempt


class Advice(NamedTuple):
    """One or two sentences, and whether another try may help: then it is the page's main button."""

    words: str
    may_help: bool = True


_THE_FILE = "The file itself is broken or unsuitable, so retrying won't help. Ask for it to be {} and uploaded again."
_ADVICE = {
    "bad-image": Advice(_THE_FILE.format("re-saved"), may_help=False),
    "too-large": Advice(_THE_FILE.format("made smaller"), may_help=False),
    "partner-refused": Advice(
        "The provider rejected the request. Retrying won't help until you change what it rejected.", may_help=False
    ),
    "worker-died": Advice("The worker died on every attempt. Read the last run's log before you requeue it."),
}
_ANY = Advice("Retry once the cause is fixed.")


def advice(code: str | None) -> Advice:
    """For an error code, which may be unknown or None."""
    return _ADVICE.get(code or "", _ANY)


def advice_after(attempts: Sequence[Attempt]) -> Advice:
    """For an item that failed at the last of its attempts, which retention may have removed."""
    return advice(attempts[-1].error_code if attempts else None)
