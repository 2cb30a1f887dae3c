"""Options and functions that several commands share."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn
from urllib.request import getproxies_environment, proxy_bypass

import click

from imgpipe_orchestration.devstack import stackfile
from imgpipe_orchestration.devstack.ports import LOOPBACK
from imgpipe_orchestration.devstack.stackfile import RunningStack
from imgpipe_orchestration.errors import SettingsError
from imgpipe_orchestration.settings import Settings, load

if TYPE_CHECKING:
    from imgpipe_orchestration.wiring.services import Services

NOT_RUNNING = 3
NO_PROXY = ("no_proxy", "NO_PROXY")
"""Some clients read the one, some the other."""
EXPORTED = "IMGPIPE_EXPORTED"
"""Set by `imgpipe env` in the user's shell: the data folder of the stack whose settings the shell has."""

ID = click.IntRange(1, 2**63 - 1)
"""An id as the tables have them."""
ID.name = "id (a number from 1 on)"  # click would call anything else no valid "integer range"

data_option = click.option(
    "--data",
    "data_dir",
    type=click.Path(file_okay=False, path_type=Path),
    callback=lambda _, __, value: value.resolve() if value else _default(),
    help="Data folder of the stack. Default: IMGPIPE_DATA_DIR, then .imgpipe here.",
)
"""`--data DIR`: the folder of the stack, IMGPIPE_DATA_DIR and `.imgpipe` otherwise; passed on resolved."""
json_option = click.option("--json", "as_json", is_flag=True, help="One JSON document on standard output.")


def _default() -> Path:
    return Path(os.environ.get("IMGPIPE_DATA_DIR") or Settings.model_fields["imgpipe_data_dir"].default).resolve()


_QUOTED = re.compile(r"`(imgpipe|dagster)(?=[ `])")


def typed(program: str) -> str:
    """The command `imgpipe` or `dagster` as it can be typed, for `make install` does not put them on PATH: its name if
    PATH finds ours, else its path, relative if it is below here."""
    ours = Path(sysconfig.get_path("scripts"), program)
    found = shutil.which(program)
    if not ours.is_file() or (found and ours.samefile(found)):
        return program
    path = os.fspath(ours.relative_to(Path.cwd()) if ours.is_relative_to(Path.cwd()) else ours)
    return shlex.quote(path if "/" in path else f"./{path}")


def retyped(text: str) -> str:
    """The text with its commands in backticks replaced by `typed`."""
    return _QUOTED.sub(lambda match: f"`{typed(match[1])}", text)


def exempt_loopback() -> None:
    """Exclude loopback from the proxies that the environment names, so that the stack's parts are reached directly, by
    this process and its children."""
    proxies = getproxies_environment()
    exempt = proxies.pop("no", "")
    if proxies and not proxy_bypass(LOOPBACK):
        for name in NO_PROXY:
            os.environ[name] = ",".join(filter(None, (os.environ.get(name, exempt), LOOPBACK, "localhost")))


def imgpipe(command: str, data_dir: Path) -> str:
    """An `imgpipe` command for the stack on `data_dir`, as it can be typed here."""
    data = "" if data_dir == _default() else f" --data {shlex.quote(str(data_dir))}"
    return f"{typed('imgpipe')} {command}{data}"


def settings_in_force(data_dir: Path) -> Settings:
    """The environment's settings, else those of the stack on `data_dir`.

    Raises:
        SettingsError: the environment has another stack's settings.
    """
    exported = os.environ.get(EXPORTED)
    if exported and Path(exported) != data_dir:
        raise SettingsError(
            f"this shell has the settings of the stack on {exported}, by `imgpipe env`; for the one on {data_dir} use"
            " another shell"
        )
    return load(data_dir=data_dir)


def settings_of(data_dir: Path) -> Settings:
    """The settings of the stack on `data_dir`, or of the environment when that names the services.

    Ends the command with code 3 when there is neither.
    """
    settings = settings_in_force(data_dir)
    # A stack that was killed leaves its file behind.
    named = os.environ.get("DATABASE_URL") or (settings.database_url and stackfile.is_running(data_dir))
    if not named:
        _no_stack(data_dir)
    return settings


@contextmanager
def services_of(data_dir: Path) -> Iterator[Services]:
    """The services with `settings_of`, for as long as the block lasts."""
    from imgpipe_orchestration.wiring.services import Services

    with closing(Services(settings_of(data_dir))) as services:
        yield services


def running_stack(data_dir: Path) -> RunningStack:
    """The stack that runs on `data_dir`; ends the command with code 3 when there is none."""
    stack = stackfile.read(data_dir)
    if stack is None:
        _no_stack(data_dir)
    return stack


def _no_stack(data_dir: Path) -> NoReturn:
    if stackfile.is_running(data_dir):
        click.echo(f"imgpipe: the stack on {data_dir} is starting or stopping; try again in a moment.", err=True)
    else:
        click.echo(f"imgpipe: no stack runs on {data_dir}. Start one with `{imgpipe('up', data_dir)}`.", err=True)
    sys.exit(NOT_RUNNING)
