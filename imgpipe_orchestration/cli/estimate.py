"""`imgpipe estimate`: what a backfill would cost, before it is started."""

from __future__ import annotations

import json
from contextlib import closing
from datetime import datetime
from pathlib import Path

import click

from imgpipe_orchestration.cli.options import data_option, json_option, settings_of


@click.group()
def command() -> None:
    """What a backfill would cost, before it is started."""


@command.command()
@click.option("--from", "first", type=click.DateTime(["%Y-%m-%d"]), required=True, help="First day of upload (UTC).")
@click.option("--to", "last", type=click.DateTime(["%Y-%m-%d"]), required=True, help="Last day of upload.")
@data_option
@json_option
def media(first: datetime, last: datetime, data_dir: Path, as_json: bool) -> None:
    """What analyses of these days are outdated, and what asking again would cost.

    A call costs what this pipeline's last thousand calls of its kind cost on average, or else is of unknown cost.
    """
    from imgpipe_orchestration.media.estimate import estimate
    from imgpipe_orchestration.services import Services

    if last < first:
        raise click.BadParameter("is before --from", param_hint="--to")
    with closing(Services(settings_of(data_dir))) as services:
        found = estimate(services, first.date(), last.date())
    if as_json:
        click.echo(json.dumps(found.shown(), indent=2))
        return
    click.echo(f"{found.images} images have an outdated analysis.")
    for operation, calls in found.calls.items():
        usual = found.costs.get(operation)
        told = (
            f"at {usual:.8f} = {calls * usual:.4f} USD" if usual is not None else "of unknown cost: none was bought yet"
        )
        click.echo(f"  {calls} x {operation} {told}")
    click.echo(f"In all {found.usd:.4f} USD{' and what is unknown' if found.unknown else ''}.")
    click.echo("Answers that were bought before cost nothing.")
