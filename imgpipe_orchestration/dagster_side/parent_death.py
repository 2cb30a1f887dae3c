"""Has Linux signal a child when its parent ends."""

import ctypes
import signal
import sys

_PR_SET_PDEATHSIG = 1

# Loaded before a fork: in the child of a process with threads another one may have held the loader's lock.
_libc = ctypes.CDLL(None) if sys.platform == "linux" else None


def die_with_parent(number: signal.Signals) -> None:
    """In a child: have this signal sent to it when the thread that forked it ends, however that ends (prctl(2)). Other
    systems have nothing of the kind."""
    if _libc is not None:
        _libc.prctl(_PR_SET_PDEATHSIG, int(number))
