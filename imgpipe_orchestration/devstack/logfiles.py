"""Keeps the parts' log files small. Each part writes to its file directly, in append mode."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

LIMIT_BYTES = 10 * 1024 * 1024


def keep_small(file: Path, limit: int = LIMIT_BYTES) -> None:
    """Move the content of a log past `limit` bytes to `<name>.log.1`, replacing what was there.

    By copying and truncating, because the part keeps the file open. Lines that it writes between the two are lost. On a
    full disk the log stays as it is.
    """
    try:
        size = file.stat().st_size
    except FileNotFoundError:
        return
    if size > limit:
        try:
            shutil.copyfile(file, file.with_name(f"{file.name}.1"))
        except OSError:
            return
        os.truncate(file, 0)
