"""What to do about a failed item, by its error code: above all whether another try can help."""

from __future__ import annotations

_THE_FILE = "The file itself is at fault, and another try ends the same: have it {} and uploaded again."
_ADVICE = {
    "bad-image": _THE_FILE.format("saved anew"),
    "too-large": _THE_FILE.format("saved smaller"),
    "partner-refused": "The provider said no for good. Requeue it once what it refused is mended.",
    "worker-died": "Its worker died at every try. Look at the last run's log before you requeue it.",
}
_ANY = "Another try may help once its cause is gone."


def advice(code: str | None) -> str:
    """One or two sentences about an error code; `code` may be unknown or None."""
    return _ADVICE.get(code or "", _ANY)
