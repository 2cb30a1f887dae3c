"""`imgpipe models check`: is every model that a task uses there, and does it do what the task needs?"""

from __future__ import annotations

import json
from contextlib import closing
from dataclasses import asdict
from pathlib import Path

import click

from imgpipe_orchestration.cli.options import data_option, json_option, settings_of


@click.group()
def command() -> None:
    """The models that answer the tasks (MODELS_FILE, docs/ai.md)."""


@command.command()
@data_option
@json_option
@click.pass_context
def check(ctx: click.Context, data_dir: Path, as_json: bool) -> None:
    """Ask each model the smallest question. Costs a fraction of a cent.

    Ends with code 1 when a model is not reached, not known, cannot see or does not keep to the schema.
    """
    from imgpipe_orchestration.cli.diagnosis.models import NO, ask_all
    from imgpipe_orchestration.services import Services

    with closing(Services(settings_of(data_dir))) as services:
        found = ask_all(services)
    if as_json:
        click.echo(json.dumps([asdict(one) for one in found], indent=2))
    else:
        from rich.console import Console
        from rich.table import Column, Table

        whole = (Column(name, overflow="fold") for name in ("model", "tasks"))
        table = Table(*whole, "reached", "known", "vision", "schema", "price", "problem")
        for one in found:
            table.add_row(*asdict(one).values())
        Console().print(table)
    ctx.exit(1 if any(NO in (one.reached, one.known, one.vision, one.schema) for one in found) else 0)
