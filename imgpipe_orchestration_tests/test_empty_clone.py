"""The README's commands, typed as they stand in an empty clone."""

import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import requests

from imgpipe_orchestration_tests.devstack.running import clean_environment, wait_for
from imgpipe_orchestration_tests.lacking import lacking

ROOT = Path(__file__).parents[1]
_CODE = re.compile(r"^    ((?:make|\.venv/bin/imgpipe|eval|curl|dagster) .*?)(?:\s+#.*)?$", re.MULTILINE)
COMMANDS = _CODE.findall((ROOT / "README.md").read_text())
"""The README's code lines, without what is said of them."""

ONE_TEST = " ARGS=imgpipe_orchestration_tests/test_errors.py"
NOT_ALL = " --only listings"
"""Behind `make test` and a second demo: the whole of them would only take longer."""

_NOT_A_TERMINALS = {"VIRTUAL_ENV", "CI", "ARGS", "MAKEFLAGS", "MFLAGS", "MAKELEVEL", "MAKEOVERRIDES"}
"""What the tests' own environment, `make` and CI leave behind; `make` would take the ARGS of the one that tests."""

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


class Shell:
    """A terminal in the clone."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        home = {name: value for name, value in clean_environment().items() if name not in _NOT_A_TERMINALS}
        self.environ = {**home, "COLUMNS": "200"}

    def type(self, command: str, *, code: int = 0) -> str:
        """Run a command to its end, which must be this exit code; what it printed."""
        words = ["bash", "-c", f"exec 2>&1; {command}"]
        done = subprocess.run(
            words, cwd=self.folder, env=self.environ, stdout=subprocess.PIPE, text=True, timeout=600, check=False
        )
        assert done.returncode == code, f"{command}\n{done.stdout}"
        return done.stdout

    @contextmanager
    def leave_running(self, command: str) -> Iterator[None]:
        """Start a command, and end it with Ctrl-C."""
        (self.folder / "output").touch()
        words = ["bash", "-c", f"exec >>output 2>&1; {command}"]
        process = subprocess.Popen(words, cwd=self.folder, env=self.environ, start_new_session=True)
        try:
            yield
        finally:
            os.killpg(process.pid, signal.SIGINT)  # as a terminal does, to everything in the foreground
            process.wait(120)

    def output(self) -> str:
        """What the commands that were left running have printed."""
        return (self.folder / "output").read_text()


@pytest.fixture
def shell(open_folder: Path) -> Shell:
    """In a clone that nothing was done to."""
    if not (ROOT / ".git").exists() or shutil.which("git") is None:
        lacking("a git checkout", "clone the project")
    subprocess.run(["git", "clone", "-q", str(ROOT), str(open_folder / "imgpipe")], check=True)
    return Shell(open_folder / "imgpipe")


def test_the_readmes_commands_do_what_it_says(shell: Shell) -> None:
    demo, up, test, env, upload, look, keep, status, doctor, requeue, backfill, without_dagster, dagster_dev = COMMANDS

    assert "everything arrived" in shell.type(demo)
    assert " passed" in shell.type(test + ONE_TEST)

    with shell.leave_running(up):
        wait_for(lambda: "Ready after" in shell.output(), "the stack")
    assert "stopped" in shell.output()

    shell.type(keep + NOT_ALL)
    gateway, dagster = shell.type(f'{env}; echo "$GATEWAY_URL $DAGSTER_URL"').split()
    assert requests.get(f"{gateway}/health", timeout=30).json()["status"] == "ok"
    assert requests.get(f"{dagster}/server_info", timeout=30).status_code == 200
    assert "listings" in shell.type(status)
    assert "bad " not in shell.type(doctor)
    shell.type(requeue)
    assert '"status":"pending"' in shell.type(f"{env}; {upload}")
    assert '"profile_image_path"' in shell.type(f"{env}; {look}")
    assert "Launched backfill" in shell.type(f"{env}; {backfill}")
    shell.type(".venv/bin/imgpipe down")
    assert "no stack runs" in shell.type(status, code=3)

    with shell.leave_running(without_dagster):
        wait_for(lambda: shell.output().count("Ready after") == 2, "the stack without Dagster")
        with shell.leave_running(dagster_dev):
            port = shell.type(f"{env}; echo $DAGSTER_WEBSERVER_PORT").strip()
            wait_for(lambda: locations(port) == ["imgpipe"], "`dagster dev`", every=0.5)
            said = shell.type(keep + NOT_ALL)
            assert "using the stack that runs" in said
            assert "everything arrived" in said
    assert "launcher" not in (shell.folder / ".imgpipe" / "dagster" / "dagster.yaml").read_text(), "it has the old code"


def locations(port: str) -> list[str]:
    """The code locations that Dagster's webserver has loaded; empty while it starts."""
    query = "{workspaceOrError{... on Workspace{locationEntries{name loadStatus locationOrLoadError{__typename}}}}}"
    try:
        answer = requests.post(f"http://127.0.0.1:{port}/graphql", json={"query": query}, timeout=30)
    except requests.RequestException:
        return []
    entries = answer.json()["data"]["workspaceOrError"]["locationEntries"]
    return [e["name"] for e in entries if e["locationOrLoadError"]["__typename"] == "RepositoryLocation"]
