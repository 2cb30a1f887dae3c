"""Clearing the processor's wide registers between codecs: while they count as in use, the next codec is slow."""

from __future__ import annotations

import numpy as np

_FEW = np.zeros(256, np.uint8)


def clear() -> None:
    """Say that the upper halves of the AVX registers are not in use; call it before libwebp and zlib.

    libaom leaves them in use, and a new process begins so. Until the instruction VZEROUPPER, code for SSE waits for
    halves that it does not touch (Intel's optimisation manual, "Mixing AVX code with SSE code"): libwebp takes 41 ms
    instead of 26, a PNG 93 instead of 77. Compilers end loops like numpy's with that instruction. It takes 1 us, and
    is nothing where there is no AVX.
    """
    np.add(_FEW, _FEW)
