"""Run-length encoded BMPs, decoded by OpenCV.

Pillow's decoder is a Python loop that takes 0.2 us a byte: 13 s for an upload of 64 MB.
"""

from __future__ import annotations

import re
import struct

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile

from imgpipe_orchestration.imaging.opencv import cv2

cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)  # else it writes each broken file to stderr

_RUNS_OF_BYTES, _RUNS_OF_HALVES = 1, 2
"""BI_RLE8 and BI_RLE4 of BITMAPINFOHEADER, for 8 and 4 bits a pixel."""
_MOST = 4
"""Bytes that a pixel takes at most: a run of one takes two, a jump over one four."""
_END_OF_ROW, _END = b"\0\0", b"\0\1"
_HALVES_WRITTEN_OUT = b"|".join(
    b"\\x00[\\x%02x-\\x%02x].{%d}" % (max(n - 3, 3), min(n, 255), n // 2) for n in range(4, 257, 4)
)
"""Pixels of four bits that stand one by one, filled up to two bytes."""
_STEP = re.compile(rb"[^\x00].|\x00\x02.\x00|" + _HALVES_WRITTEN_OUT, re.DOTALL)
"""What goes along a row of a 4-bit picture: a run, a jump that stays in it, pixels one by one."""
_STEPS = re.compile(rb"((?:" + _STEP.pattern + rb")*+)(\x00[\x00\x01]|\x00\x02..)", re.DOTALL)
"""All steps until an end or a jump over rows."""
_OVERHANG = 256
"""Extra columns that are decoded and cut off. ImageMagick pads rows to four bytes; without room for the padding, OpenCV
would begin a row after the last pixel that fits, and another one at the end-of-row mark."""


class BmpRuns(ImageFile.PyDecoder):
    """Replaces Pillow's decoder of the same name, and gives the same pixels.

    Pixels that a file skips (the rest of a row, a jump, an early end) get the palette's first colour.
    """

    _pulls_fd = True

    def decode(self, buffer: Image.DecoderInput) -> tuple[int, int]:
        """Set all pixels.

        Raises:
            OSError: a run leads far out of its row, or the runs are cut short.
        """
        _, halves, direction = self.args
        width, height = self.state.xsize + _OVERHANG, self.state.ysize
        runs = self.fd.read(_MOST * (width + 1) * height) if self.fd else b""
        if halves and re.search(rb"\x00\x02.[^\x00]", runs, re.DOTALL):
            runs = _without_jumps_over_rows(runs, width, height)
        rows = cv2.imdecode(_in_greys(runs, width, height, halves=halves), cv2.IMREAD_UNCHANGED)
        if rows is None:
            raise OSError("its run lengths are cut short or lead out of the picture")
        downwards = direction > 0
        rows = rows[::-1, :-_OVERHANG] if downwards else rows[:, :-_OVERHANG]
        self.set_as_raw(rows.tobytes(), "P" if self.mode == "P" else "L", (0, 1))
        return -1, 0


def _without_jumps_over_rows(runs: bytes, width: int, height: int) -> bytes:
    """The runs of a 4-bit picture with each jump over rows as ends of rows and a jump along the one that it leads to:
    of a jump, OpenCV heeds only how far it leads to the right."""
    parts: list[bytes] = []
    column, row, at = 0, 0, 0
    while column <= width and row <= height and (found := _STEPS.match(runs, at)):
        steps, end = found.groups()
        if end.startswith(b"\0\2"):
            right, up = end[2:]
            column += right + sum(map(_pixels, _STEP.findall(steps)))
            further, rest = divmod(column, 255)
            end = _END_OF_ROW * up + b"\0\2\xff\0" * further + b"\0\2%c\0" % rest
        else:
            column, up = 0, 1
        parts += steps, end
        row, at = row + up, found.end()
    return b"".join(parts) + runs[at:]


def _pixels(step: bytes) -> int:
    """How far a step leads."""
    return step[0] or (step[2] if step[1] == 2 else step[1])


def _in_greys(runs: bytes, width: int, height: int, *, halves: bool) -> NDArray[np.uint8]:
    """The runs as a BMP whose palette is a grey ramp, so that OpenCV returns palette indices."""
    bits, kind = (4, _RUNS_OF_HALVES) if halves else (8, _RUNS_OF_BYTES)
    if halves and runs.rstrip(b"\0").endswith(_END):
        runs += _END_OF_ROW * height  # OpenCV reads on after the end mark of a 4-bit picture
    ramp = b"".join(bytes((level, level, level, 0)) for level in range(1 << bits))
    start = 54 + len(ramp)
    head = struct.pack("<2sIII", b"BM", start + len(runs), 0, start)
    size = struct.pack("<IiiHHIIiiII", 40, width, height, 1, bits, kind, len(runs), 0, 0, 1 << bits, 0)
    return np.frombuffer(b"".join((head, size, ramp, runs)), dtype=np.uint8)
