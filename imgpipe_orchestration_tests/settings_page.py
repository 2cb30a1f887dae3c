"""`python -m imgpipe_orchestration_tests.settings_page`: writes docs/settings.md from settings.py (`make fix`)."""

import inspect
import re
from pathlib import Path
from typing import Literal, get_args, get_origin

from imgpipe_orchestration import settings
from imgpipe_orchestration.settings import DEVELOPMENT_SECRET, Settings

FILE = Path(__file__).parents[1] / "docs" / "settings.md"

_SECTION = re.compile(r"^    # --- (?P<title>[^-].*?) -+$")
_FIELD = re.compile(r"^    (?P<name>[a-z0-9_]+): ")

_HEAD = """# Settings

Every setting is an environment variable. `imgpipe env` prints those in force. A setting that names a real service
replaces what `imgpipe up` would start for it. `imgpipe doctor` reports unusable values and misspelled names.

`imgpipe_orchestration/settings.py` is the source of this page; `make fix` writes it.
"""


def render() -> str:
    """The page."""
    lines = [_HEAD]
    for title, names in _sections():
        lines += [
            f"## {title[0].upper()}{title[1:]}",
            "",
            "| variable | default | meaning |",
            "| --- | --- | --- |",
        ]
        for name in names:
            field = Settings.model_fields[name]
            meaning, default = str(field.description), _default(field.default, field.annotation)
            if field.default == "":
                meaning, _, default = meaning.partition(" Empty: ")
            cells = (f"`{name.upper()}`", default.rstrip("."), meaning)
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


def _default(value: object, annotation: object) -> str:
    if value == DEVELOPMENT_SECRET:
        return "a development key"
    kinds = [annotation, *get_args(annotation)]  # a setting may be a number or a word
    choices = [choice for kind in kinds if get_origin(kind) is Literal for choice in get_args(kind)]
    others = [f"`{choice}`" for choice in choices if choice != value]
    return f"`{value}`" + (f" (or {', '.join(others)})" if others else "")


if __name__ == "__main__":
    FILE.write_text(render())
