"""`imgpipe env`: the environment with which other programs reach the running stack."""

from __future__ import annotations

import json
import os
import shlex
import sysconfig
from pathlib import Path

import click

from imgpipe_orchestration.cli.options import EXPORTED, data_option, json_option, running_stack
from imgpipe_orchestration.cli.proxies import VARIABLES
from imgpipe_orchestration.cli.typed import typed


@click.command()
@data_option
@json_option
def command(data_dir: Path, as_json: bool) -> None:
    """Print every URL, port and development key in force, as shell exports: eval "$(imgpipe env)".

    Where PATH does not find `imgpipe` and `dagster`, it is made to. In production no key and no URL that holds one is
    printed. Ends with code 3 when no stack runs.
    """
    environment = dict(sorted(running_stack(data_dir).environment.items()))
    # `exempt_loopback` has set these if there is a proxy, which cannot reach the stack's addresses.
    environment |= {name: os.environ[name] for name in VARIABLES if name in os.environ}
    if as_json:
        click.echo(json.dumps(environment, indent=2))
        return
    for name, value in (*environment.items(), (EXPORTED, str(data_dir))):
        click.echo(f"export {name}={shlex.quote(value)}")
    if typed("dagster") != "dagster":
        # At the end, so that `python` and other commands stay the user's own.
        click.echo(f'export PATH="$PATH":{shlex.quote(sysconfig.get_path("scripts"))}')
