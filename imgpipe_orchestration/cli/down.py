"""`imgpipe down`: stop the stack of a data folder from outside."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

import click

from imgpipe_orchestration.cli.options import data_option, running_stack
from imgpipe_orchestration.devstack import stackfile

_STOP_SECONDS = 30


@click.command()
@data_option
def command(data_dir: Path) -> None:
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
