"""Commands in what we print, spelled as this user can type them here: `make install` puts none of them on PATH."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import sysconfig
from pathlib import Path

_QUOTED = re.compile(r"`(imgpipe|dagster)(?=[ `])")


def typed(program: str) -> str:
    """`imgpipe` or `dagster`: by name where that finds ours, else by path, from here where it lies below."""
    ours = Path(sysconfig.get_path("scripts"), program)
    found = shutil.which(program)
    if not ours.is_file() or (found and ours.samefile(found)):
        return program
    path = os.fspath(ours.relative_to(Path.cwd()) if ours.is_relative_to(Path.cwd()) else ours)
    return shlex.quote(path if "/" in path else f"./{path}")


def retyped(text: str) -> str:
    """The text with its commands in backticks as they can be typed."""
    return _QUOTED.sub(lambda match: f"`{typed(match[1])}", text)
