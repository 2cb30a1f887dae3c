"""Rewrites commands in our messages so that the user can type them: `make install` does not put them on PATH."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import sysconfig
from pathlib import Path

_QUOTED = re.compile(r"`(imgpipe|dagster)(?=[ `])")


def typed(program: str) -> str:
    """The command `imgpipe` or `dagster`: its name if PATH finds ours, else its path, relative if it is below here."""
    ours = Path(sysconfig.get_path("scripts"), program)
    found = shutil.which(program)
    if not ours.is_file() or (found and ours.samefile(found)):
        return program
    path = os.fspath(ours.relative_to(Path.cwd()) if ours.is_relative_to(Path.cwd()) else ours)
    return shlex.quote(path if "/" in path else f"./{path}")


def retyped(text: str) -> str:
    """The text with its commands in backticks replaced by `typed`."""
    return _QUOTED.sub(lambda match: f"`{typed(match[1])}", text)
