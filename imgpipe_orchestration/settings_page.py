"""`python -m imgpipe_orchestration.settings_page`: writes docs/settings.md from settings.py (`make fix` does it)."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from imgpipe_orchestration import settings
from imgpipe_orchestration.settings import DEVELOPMENT_SECRET, Settings

FILE = Path(__file__).parents[1] / "docs" / "settings.md"

_SECTION = re.compile(r"^    # --- (?P<title>[^-].*?) -+$")
_FIELD = re.compile(r"^    (?P<name>[a-z0-9_]+): ")

_HEAD = """# Settings

Every setting is an environment variable. `imgpipe up` hands them to all its parts; `imgpipe env` prints those in force.
A setting that names a real service (DATABASE_URL, S3_ENDPOINT, MONGODB_URL, OPENAI_API_KEY, ...) replaces the part
that `imgpipe up` would start for it. `imgpipe doctor` says which settings cannot be used and why,
and which variables nearly have the name of one.

This page is generated from `imgpipe_orchestration/settings.py` by `make fix`.
"""


def render() -> str:
    """The page."""
    lines = [_HEAD]
    for title, names in _sections():
        lines += [
            f"## {title[0].upper()}{title[1:]}",
            "",
            "| variable | kind | default | meaning |",
            "| --- | --- | --- | --- |",
        ]
        for name in names:
            field = Settings.model_fields[name]
            cells = (
                f"`{name.upper()}`",
                _kind(field.annotation, field.metadata),
                _default(field.default),
                field.description,
            )
            lines.append("| " + " | ".join(str(cell).replace("|", "\\|") for cell in cells) + " |")
        lines.append("")
    return "\n".join(lines)


def _sections() -> list[tuple[str, list[str]]]:
    """The fields under the heading comments of the class, in the source's order."""
    found: list[tuple[str, list[str]]] = []
    for line in inspect.getsource(settings.Settings).splitlines():
        if match := _SECTION.match(line):
            found.append((match["title"], []))
        elif (match := _FIELD.match(line)) and match["name"] in Settings.model_fields:
            found[-1][1].append(match["name"])
    return found


def _kind(annotation: Any, metadata: list[Any]) -> str:
    if get_origin(annotation) is Literal:
        return " or ".join(f"`{choice}`" for choice in get_args(annotation) if choice)
    kinds = {str: "text", int: "whole number", float: "number", Path: "path"}
    bounds = {"ge": "from", "gt": "above", "le": "to"}
    limits = [f"{word} {getattr(m, name)}" for m in metadata for name, word in bounds.items() if hasattr(m, name)]
    return " ".join([kinds[annotation], *limits])


def _default(value: object) -> str:
    if value == DEVELOPMENT_SECRET:
        return "a development key; refused in production"
    return f"`{value}`" if value != "" else "empty"


if __name__ == "__main__":
    FILE.write_text(render())
