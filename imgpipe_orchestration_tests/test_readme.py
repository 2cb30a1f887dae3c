"""The commands that README and the operator's page name exist, and the files that any page links to."""

import re
from pathlib import Path

import click
import pytest

from imgpipe_orchestration.cli import imgpipe

ROOT = Path(__file__).parents[1]
PAGES = (ROOT / "README.md", ROOT / "docs" / "operations.md")
EVERY_PAGE = sorted((*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "deploy").rglob("*.md")))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_imgpipe_command_exists_with_its_options(page: Path) -> None:
    context = click.Context(imgpipe)
    for name, rest in re.findall(r"imgpipe ([a-z][a-z-]+)((?: \[?--?[a-z-]+)*)", page.read_text()):
        command = imgpipe.get_command(context, name)
        if command is None:
            continue  # prose, as in "imgpipe is a ..."; commands in code are checked below
        options = {option for parameter in command.params for option in parameter.opts}
        assert set(re.findall(r"--[a-z-]+", rest)) <= options, f"{page.name}: imgpipe {name}{rest}"


@pytest.mark.parametrize("page", EVERY_PAGE, ids=lambda page: str(page.relative_to(ROOT)))
def test_what_stands_in_code_as_a_command_is_one(page: Path) -> None:
    commands = imgpipe.list_commands(click.Context(imgpipe))
    named = re.findall(r"(?:`|^    |[./]venv/bin/)imgpipe ([a-z][a-z-]+)", page.read_text(), re.MULTILINE)
    assert set(named) <= set(commands)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_make_target_exists(page: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"(?:^    |`)make ([a-z-]+)", page.read_text(), re.MULTILINE))
    assert named <= targets


@pytest.mark.parametrize("page", EVERY_PAGE, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_to_a_file_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text()):
        assert (page.parent / target).exists(), f"{page.name}: {target}"
