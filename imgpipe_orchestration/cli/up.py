"""`imgpipe up`: the whole stack in the foreground."""

from __future__ import annotations

import contextlib
import io
import os
import sys
import time
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from imgpipe_orchestration.cli.options import EXPORTED, data_option, imgpipe, retyped
from imgpipe_orchestration.errors import Conflict, SettingsError
from imgpipe_orchestration.telemetry.redaction import redact

if TYPE_CHECKING:
    from rich.table import Table

    from imgpipe_orchestration.devstack.plan import Plan

ALREADY_RUNNING = 4
_PROJECT = Path(__file__).parents[2]


@click.command()
@data_option
@click.option("--no-dagster", is_flag=True, help="Without Dagster: run `dagster dev` yourself, beside it.")
@click.option("--port", type=click.IntRange(0, 65535), help="Port of the gateway (GATEWAY_PORT); 0 takes a free one.")
def up(data_dir: Path, no_dagster: bool, port: int | None) -> None:
    """Start the databases, the stand-in partners, the gateway and Dagster, and keep them running until Ctrl-C.

    A setting that names a real service (DATABASE_URL, S3_ENDPOINT, MONGODB_URL, OPENAI_API_KEY, ...) replaces ours.
    """
    from imgpipe_orchestration.devstack.plan import make_plan
    from imgpipe_orchestration.devstack.services import prepare_dagster_home
    from imgpipe_orchestration.devstack.stackfile import locked
    from imgpipe_orchestration.devstack.supervisor import Supervisor
    from imgpipe_orchestration.settings import misspelled

    began = time.monotonic()
    data_dir.mkdir(parents=True, exist_ok=True)
    try:
        with locked(data_dir):
            if exported := os.environ.get(EXPORTED):
                raise SettingsError(
                    f"this shell has the settings of the stack on {exported}, by `imgpipe env`; a new stack would take"
                    " them for servers of yours: start it in another shell"
                )
            plan = make_plan(data_dir, os.environ, dagster=not no_dagster, gateway_port=port)
            prepare_dagster_home(data_dir / "dagster", _dagster_configuration())
            _say(f"starting on {data_dir}")
            for note in (*misspelled(), *plan.ports.notes):
                _say(note)
            Supervisor(plan, _say).run(on_ready=lambda: _announce(plan, time.monotonic() - began))
    except Conflict as conflict:
        click.echo(f"imgpipe: {retyped(conflict.public)}", err=True)
        sys.exit(ALREADY_RUNNING)
    _say("stopped")


def _announce(plan: Plan, seconds: float) -> None:
    from rich.console import Console

    # For a file or a pipe rich takes a width of 80, which breaks the links.
    terminal = sys.stdout is not None and sys.stdout.isatty()
    announced = io.StringIO()
    console = Console(file=announced, force_terminal=terminal, width=None if terminal else 120, markup=False)
    console.print(_table(plan))
    console.print(f"Ready after {seconds:.1f} s. Ctrl-C stops everything; the data stays in {plan.data_dir}.")
    console.print(f'Point other programs at it: eval "$({imgpipe("env", plan.data_dir)})"', soft_wrap=True)
    _write(announced.getvalue().rstrip())


def _table(plan: Plan) -> Table:
    """The parts with their addresses."""
    from rich.table import Table

    from imgpipe_orchestration.devstack.ports import LOOPBACK

    table = Table(title="imgpipe", title_justify="left")
    for heading in ("part", "where", "what"):
        table.add_column(heading, overflow="fold")
    settings = plan.settings
    table.add_row("gateway", settings.gateway_url, "uploads, images, pages, API")
    table.add_row("auto-marker API", f"http://{LOOPBACK}:{settings.flask_port}", "the gateway again (FLASK_PORT)")
    rows = {
        "dagster-webserver": (settings.dagster_url, "pipelines, runs, schedules"),
        "dagster-daemon": (f"{settings.dagster_url}/deployment/daemons", "sensors, schedules, run queue"),
        "postgres": (settings.database_url, "rows"),
        "s3": (settings.s3_endpoint, "objects"),
        "s3-public": (settings.s3_public_endpoint, "the public buckets, read-only"),
        "mongo": (settings.mongodb_url, "documents"),
    }
    running = {part.name: part for part in plan.parts}
    for name, (where, what) in rows.items():
        if name in running:
            table.add_row(name, where, what)
        elif name in {"dagster-webserver", "postgres", "s3", "mongo"}:
            table.add_row(name, redact(where), f"{what} (yours)")
    if plan.stand_ins:
        table.add_row("stand-ins", running["stand-ins"].url, f"play {', '.join(plan.stand_ins)}")
    table.add_row("logs", str(plan.data_dir / "logs"), "one file a part")
    return table


def _dagster_configuration() -> Path:
    file = _PROJECT / "dagster.yaml"
    if not file.is_file():
        raise SettingsError(f"{file} is missing: `imgpipe up` runs from a checkout of the project")
    return file


def _say(line: str) -> None:
    _write(f"{datetime.now().astimezone():%H:%M:%S}  {line}")


def _write(text: str) -> None:
    """Write to standard output. Errors are ignored: the stack goes on when its output is closed or the disk is full."""
    with contextlib.suppress(OSError):
        click.echo(text)
