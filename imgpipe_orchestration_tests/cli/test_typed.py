"""Commands in what we print, as a user can type them."""

from __future__ import annotations

import os
import subprocess
import sysconfig
from pathlib import Path

import pytest

from imgpipe_orchestration.cli.typed import retyped, typed
from imgpipe_orchestration_tests.devstack.running import imgpipe

SCRIPTS = Path(sysconfig.get_path("scripts"))


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of ours on PATH, but another program of the name."""
    (tmp_path / "imgpipe").write_text("#!/bin/sh\n")
    (tmp_path / "imgpipe").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))


def test_what_path_finds_is_called_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", f"/usr/bin:{SCRIPTS}")
    assert (typed("imgpipe"), typed("dagster")) == ("imgpipe", "dagster")


@pytest.mark.usefixtures("elsewhere")
def test_what_it_does_not_find_is_called_by_a_path_that_works(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(SCRIPTS.parents[1])
    assert typed("imgpipe") == os.fspath(SCRIPTS.relative_to(SCRIPTS.parents[1]) / "imgpipe")
    monkeypatch.chdir(tmp_path)
    assert typed("dagster") == os.fspath(SCRIPTS / "dagster")


@pytest.mark.usefixtures("elsewhere")
def test_commands_in_backticks_can_be_typed_and_other_words_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(SCRIPTS)
    text = "Run `imgpipe migrate` or `dagster dev`; `imgpipe_x` of imgpipe is none."
    assert retyped(text) == "Run `./imgpipe migrate` or `./dagster dev`; `imgpipe_x` of imgpipe is none."


def test_a_printed_command_runs_where_it_was_printed(tmp_path: Path) -> None:
    told = imgpipe("status", "--data", str(tmp_path)).stderr
    command = told.partition("`")[2].partition("`")[0].replace(" up ", " down ")
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 3, done.stderr
