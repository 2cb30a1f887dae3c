"""`imgpipe requeue`: failed items wait again, with fresh attempts; pauses of items and of providers end."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import click

from imgpipe_orchestration.cli.options import Id, data_option, json_option, settings_of


@click.command()
@click.argument("pipeline")
@click.argument("ids", type=Id(), nargs=-1, metavar="[ID ...]")
@data_option
@json_option
@click.pass_context
def command(ctx: click.Context, pipeline: str, ids: tuple[int, ...], data_dir: Path, as_json: bool) -> None:
    """Give the failed items of PIPELINE (all, or those with these IDs) fresh attempts, and end the pauses of those that
    wait for a later moment, and of all providers.

    PIPELINE is a pipeline's name or that of one of its queues, IDs are as `imgpipe status` shows them; with a
    pipeline's name they are looked for in its main queue. Ends with code 1 when an ID is neither failed nor pausing.
    """
    from imgpipe_orchestration.errors import NotFound
    from imgpipe_orchestration.identity import audit
    from imgpipe_orchestration.operations.pipelines import end_pauses, queues
    from imgpipe_orchestration.services import Services

    with closing(Services(settings_of(data_dir))) as services:
        try:
            wanted = queues(pipeline)
        except NotFound as unknown:
            raise click.BadParameter(unknown.public, param_hint="PIPELINE") from unknown
        chosen = list(ids) or None
        if chosen:
            wanted = wanted[:1]
        with audit.by_command(services.engine, "requeue", " ".join([pipeline or "all", *map(str, ids)])):
            hastened = end_pauses(services, wanted, chosen)  # before failed ones are requeued, which then wait, too
            requeued = {queue.name: services.claims.requeue(queue, chosen) for queue in wanted}
    due, again = (sorted(one for found in each.values() for one in found) for each in (hastened, requeued))
    missing = sorted(set(ids) - set(due) - set(again))
    if as_json:
        click.echo(json.dumps({"requeued": requeued, "hastened": hastened, "not_failed": missing}))
    else:
        click.echo(_said(again, "item waits again", "items wait again"))
        if due:
            click.echo(_said(due, "item no longer pauses", "items no longer pause"))
        if missing:
            click.echo(f"neither failed nor pausing: {', '.join(map(str, missing))}", err=True)
    ctx.exit(1 if missing else 0)


def _said(ids: Sequence[int], one: str, many: str) -> str:
    return f"{len(ids)} {one if len(ids) == 1 else many}{': ' if ids else ''}{', '.join(map(str, ids))}"
