"""`imgpipe up`, the whole stack in the foreground; and `down`, `env` and `token` for one that runs."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import signal
import sys
import sysconfig
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from imgpipe_orchestration.cli.options import (
    EXPORTED,
    ID,
    NO_PROXY,
    data_option,
    imgpipe,
    json_option,
    retyped,
    running_stack,
    settings_of,
    typed,
)
from imgpipe_orchestration.devstack import stackfile
from imgpipe_orchestration.devstack.ports import LOOPBACK
from imgpipe_orchestration.errors import Conflict, SettingsError
from imgpipe_orchestration.telemetry.redaction import redact

if TYPE_CHECKING:
    from imgpipe_orchestration.devstack.plan import Plan

ALREADY_RUNNING = 4
_STOP_SECONDS = 30
_TOKEN_HOURS = 12
_DAGSTER_YAML = Path(__file__).parents[2] / "dagster.yaml"


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
    from imgpipe_orchestration.devstack.supervisor import Supervisor
    from imgpipe_orchestration.operations.startup import misspelled

    began = time.monotonic()
    os.umask(0o027)  # for the parts too: what they write, logs included, is not for others to read
    data_dir.mkdir(parents=True, exist_ok=True)
    try:
        with stackfile.locked(data_dir):
            if exported := os.environ.get(EXPORTED):
                raise SettingsError(
                    f"this shell has the settings of the stack on {exported}, by `imgpipe env`; a new stack would take"
                    " them for your own servers: start it in another shell"
                )
            if not _DAGSTER_YAML.is_file():
                raise SettingsError(f"{_DAGSTER_YAML} is missing: `imgpipe up` runs from a checkout of the project")
            plan = make_plan(data_dir, os.environ, dagster=not no_dagster, gateway_port=port)
            code_port = plan.ports.chosen["code-server"]
            prepare_dagster_home(data_dir / "dagster", _DAGSTER_YAML, code_port, dev=no_dagster)
            _say(f"starting on {data_dir}")
            for note in (*misspelled(), *plan.ports.notes):
                _say(note)
            Supervisor(plan, _say).run(on_ready=lambda: _announce(plan, time.monotonic() - began))
    except Conflict as conflict:
        click.echo(f"imgpipe: {retyped(conflict.public)}", err=True)
        sys.exit(ALREADY_RUNNING)
    _say("stopped")


def _announce(plan: Plan, seconds: float) -> None:
    rows = list(_parts(plan))
    names, places = (max(len(row[column]) for row in rows) for column in (0, 1))
    for name, where, what in rows:
        _write(f"  {name:<{names}}  {where:<{places}}  {what}")
    _write(f"Ready after {seconds:.1f} s. Ctrl-C stops everything; the data stays in {plan.data_dir}.")
    _write(f'Point other programs at it: eval "$({imgpipe("env", plan.data_dir)})"')


def _parts(plan: Plan) -> Iterator[tuple[str, str, str]]:
    """What runs where, and what for."""
    settings = plan.settings
    yield "gateway", settings.gateway_url, "uploads, images, pages, API"
    yield "auto-marker API", f"http://{LOOPBACK}:{settings.flask_port}", "the gateway again (FLASK_PORT)"
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
            yield name, where, what
        elif name in {"dagster-webserver", "postgres", "s3", "mongo"}:
            yield name, redact(where), f"{what} (yours)"
    if plan.stand_ins:
        yield "stand-ins", running["stand-ins"].url, f"play {', '.join(plan.stand_ins)}"
    yield "logs", str(plan.data_dir / "logs"), "one file per part"


def _say(line: str) -> None:
    _write(f"{datetime.now().astimezone():%H:%M:%S}  {line}")


def _write(text: str) -> None:
    """Write to standard output. Errors are ignored: the stack goes on when its output is closed or the disk is full."""
    with contextlib.suppress(OSError):
        click.echo(text)


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

    Adds `imgpipe` and `dagster` to PATH if it lacks them. In production no key and no URL that holds one is printed.
    Ends with code 3 when no stack runs.
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
@click.argument("user", type=ID)
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
