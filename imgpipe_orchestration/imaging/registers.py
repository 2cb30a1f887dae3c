"""Clearing the processor's AVX registers between codecs: while they count as in use, the next codec is slow."""

from __future__ import annotations

import numpy as np

_FEW = np.zeros(256, np.uint8)


def clear() -> None:
    """Mark the upper halves of the AVX registers as unused; call it before libwebp and zlib.

    libaom leaves them in use, and so does the start of a process. Until the instruction VZEROUPPER, SSE code waits for
    these halves although it does not touch them (Intel's optimisation manual, "Mixing AVX code with SSE code"): libwebp
    takes 41 ms instead of 26, a PNG 93 instead of 77. Compilers end loops like the one that NumPy runs here with that
    instruction. It takes 1 us, and does nothing without AVX.
    """
    np.add(_FEW, _FEW)
