"""`imgpipe requeue`: failed items wait again, with fresh attempts."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path

import click

from imgpipe_orchestration.cli.options import data_option, json_option, settings_of


@click.command()
@click.argument("pipeline")
@click.argument("ids", type=click.IntRange(1, 2**63 - 1), nargs=-1, metavar="[ID ...]")
@data_option
@json_option
@click.pass_context
def command(ctx: click.Context, pipeline: str, ids: tuple[int, ...], data_dir: Path, as_json: bool) -> None:
    """Give the failed items of PIPELINE (all, or those with these IDs) fresh attempts.

    PIPELINE is a pipeline's name or that of one of its queues, IDs are as `imgpipe status` shows them; with a
    pipeline's name they are looked for in its main queue. Ends with code 1 when an ID is not among the failed.
    """
    from imgpipe_orchestration.pipelines import queues
    from imgpipe_orchestration.services import Services

    with closing(Services(settings_of(data_dir))) as services:
        wanted = queues(pipeline, services.settings)
        if ids:
            requeued = {wanted[0].name: services.claims.requeue(wanted[0], list(ids))}
        else:
            requeued = {queue.name: services.claims.requeue(queue) for queue in wanted}
    done = sorted(one for found in requeued.values() for one in found)
    missing = sorted(set(ids) - set(done))
    if as_json:
        click.echo(json.dumps({"requeued": requeued, "not_failed": missing}))
    else:
        said = "1 item waits again" if len(done) == 1 else f"{len(done)} items wait again"
        click.echo(f"{said}{': ' + ', '.join(map(str, done)) if done else ''}")
        if missing:
            click.echo(f"not among the failed: {', '.join(map(str, missing))}", err=True)
    ctx.exit(1 if missing else 0)
