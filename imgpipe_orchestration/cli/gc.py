"""`imgpipe gc`: objects that no row names, rows that name no object."""

from __future__ import annotations

import json
from contextlib import closing
from dataclasses import asdict
from pathlib import Path

import click

from imgpipe_orchestration.cli.options import data_option, json_option, settings_of
from imgpipe_orchestration.cli.typed import retyped


@click.command()
@click.argument("pipelines", nargs=-1, metavar="[PIPELINE ...]")
@data_option
@json_option
@click.option("--delete", "act", is_flag=True, help="Delete garbage and have what is missing made again.")
@click.option("--even-most", is_flag=True, help="With --delete: also where most of a bucket is garbage.")
@click.option("--grace-hours", type=click.FloatRange(min=0), help="Younger objects stay. Default: a day.")
@click.pass_context
def command(
    ctx: click.Context,
    pipelines: tuple[str, ...],
    data_dir: Path,
    as_json: bool,
    act: bool,
    even_most: bool,
    grace_hours: float | None,
) -> None:
    """Look through the object store of all pipelines or of those named. Changes nothing without --delete.

    Ends with code 1 when rows name objects that are missing for good: originals, and what was made of a missing one.
    Without --delete nothing is made again, and every missing object counts. Also where most of a bucket would be
    deleted: that one is left as it is.
    """
    from imgpipe_orchestration.errors import NotFound
    from imgpipe_orchestration.operations.garbage import GRACE_HOURS, collect_garbage
    from imgpipe_orchestration.services import Services
    from imgpipe_orchestration.settings import CENTURY_DAYS

    settings = settings_of(data_dir)
    hours = GRACE_HOURS if grace_hours is None else grace_hours
    if not hours <= 24 * CENTURY_DAYS:  # nor NaN, which is neither more nor less
        raise click.BadParameter("an object is no older than a hundred years", param_hint="--grace-hours")
    with closing(Services(settings)) as services:
        try:
            found = collect_garbage(services, pipelines, act=act, grace_hours=hours, even_most=even_most)
        except NotFound as unknown:
            raise click.BadParameter(unknown.public, param_hint="PIPELINE") from unknown
    if as_json:
        click.echo(json.dumps([asdict(one) for one in found], indent=2))
    else:
        for one in found:
            done = f"{one.deleted} deleted" if act else "nothing deleted (--delete does)"
            click.echo(
                f"{one.name}: {one.objects} objects, {one.garbage} of them garbage "
                f"({one.garbage_bytes / 1e6:.1f} MB), {one.young} too young to tell; {done}"
            )
            for key in one.garbage_keys:
                click.echo(f"  garbage {key}")
            click.echo(
                f"  {one.rows} objects named by rows, {one.missing} of them missing, {one.lost} for good"
                + (f"; those of {one.repaired} rows are made again" if one.repaired else "")
            )
            for key in one.missing_keys:
                click.echo(f"  missing {key}")
    for one in found:
        if one.doubt:
            click.echo(f"imgpipe: {retyped(one.doubt)}", err=True)
    ctx.exit(1 if any(one.doubt or (one.lost if act else one.missing) for one in found) else 0)
