"""`imgpipe down`, `env` and `token`: a stack that runs, stopped or used from outside."""

from __future__ import annotations

import json
import os
import shlex
import signal
import sys
import sysconfig
import time
from pathlib import Path

import click

from imgpipe_orchestration.cli.options import (
    EXPORTED,
    NO_PROXY,
    Id,
    data_option,
    json_option,
    running_stack,
    settings_of,
    typed,
)
from imgpipe_orchestration.devstack import stackfile

_STOP_SECONDS = 30
_TOKEN_HOURS = 12


@click.command()
@data_option
def down(data_dir: Path) -> None:
    """Stop the stack that runs on this data, and wait until it has."""
    stack = running_stack(data_dir)
    os.kill(stack.pid, signal.SIGTERM)
    deadline = time.monotonic() + _STOP_SECONDS
    while stackfile.is_running(data_dir):
        if time.monotonic() > deadline:
            click.echo(f"imgpipe: process {stack.pid} has not stopped after {_STOP_SECONDS} s", err=True)
            sys.exit(1)
        time.sleep(0.05)
    click.echo(f"stopped (process {stack.pid})")


@click.command()
@data_option
@json_option
def env(data_dir: Path, as_json: bool) -> None:
    """Print every URL, port and development key in force, as shell exports: eval "$(imgpipe env)".

    Where PATH does not find `imgpipe` and `dagster`, it is made to. In production no key and no URL that holds one is
    printed. Ends with code 3 when no stack runs.
    """
    environment = dict(sorted(running_stack(data_dir).environment.items()))
    # `exempt_loopback` has set these if there is a proxy, which cannot reach the stack's addresses.
    environment |= {name: os.environ[name] for name in NO_PROXY if name in os.environ}
    if as_json:
        click.echo(json.dumps(environment, indent=2))
        return
    for name, value in (*environment.items(), (EXPORTED, str(data_dir))):
        click.echo(f"export {name}={shlex.quote(value)}")
    if typed("dagster") != "dagster":
        # At the end, so that `python` and other commands stay the user's own.
        click.echo(f'export PATH="$PATH":{shlex.quote(sysconfig.get_path("scripts"))}')


@click.command()
@click.argument("user", type=Id())
@data_option
def token(user: int, data_dir: Path) -> None:
    """Print a token of USER (a number) for `Authorization: Bearer`, good for twelve hours.

    Not in production, where whoever signs the users in makes their tokens: nobody should act as somebody else.
    """
    import jwt

    settings = settings_of(data_dir)
    if settings.production:
        raise click.UsageError("in production users' tokens come from where they sign in")
    claims = {"sub": str(user), "exp": int(time.time()) + _TOKEN_HOURS * 3600}
    click.echo(jwt.encode(claims, settings.user_jwt_secret, "HS256"))
