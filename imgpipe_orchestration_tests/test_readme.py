"""The commands that README and the operator's page name exist, and the files that any page links to."""

from __future__ import annotations

import re
import subprocess
import sys
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


def test_every_command_is_on_the_operators_page() -> None:
    page = PAGES[1].read_text()
    for name in imgpipe.list_commands(click.Context(imgpipe)):
        assert f"`imgpipe {name}" in page


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_make_target_exists(page: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"(?:^    |`)make ([a-z-]+)", page.read_text(), re.MULTILINE))
    assert named <= targets


@pytest.mark.parametrize("page", EVERY_PAGE, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_to_a_file_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text()):
        assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_make_says_of_an_old_python_that_it_is_too_old(tmp_path: Path) -> None:
    """As the README has it: 3.11 or newer. pip alone speaks of conflicting dependencies."""
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    old = tmp_path / "python3.10"
    pretend = "import sys; sys.version_info = (3, 10, 0); exec(sys.argv.pop())"
    old.write_text(f'#!/bin/sh\nexec "{sys.executable}" -c "{pretend}" "$@"\n')
    old.chmod(0o755)
    command = ["make", "install", f"PYTHON={old}", "UV="]
    told = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert told.returncode == 2
    assert f"{old} is too old" in told.stderr
    assert not (tmp_path / ".venv").exists()


def test_the_demo_installs_what_runs_and_the_tests_what_tests(tmp_path: Path) -> None:
    """Half of the packages are the tests', and a demo waits for none of them."""
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    for target, extras in (("demo", "embedded"), ("up", "embedded"), ("test", "embedded,scale,dev")):
        command = ["make", "--dry-run", target, "UV="]
        told = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True).stdout
        assert f"-e '.[{extras}]'" in told, told
        assert "--quiet" not in told, "an installation of a minute shows how far it is"
