"""`imgpipe embeddings rebuild`: the search's vectors by another model or of another length."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import click

from imgpipe_orchestration.cli.options import data_option, settings_of


@click.group()
def command() -> None:
    """The vectors that the search compares (docs/ai.md)."""


@command.command()
@data_option
def rebuild(data_dir: Path) -> None:
    """Recompute all vectors with the model and length that the task `embed` has now.

    The search goes on with the old ones until all are there. It can be stopped; called again it goes on.
    """
    from imgpipe_orchestration.media.embedding_rebuild import rebuild as make
    from imgpipe_orchestration.services import Services

    def told(done: int, of: int) -> None:
        click.echo(f"{done} of {of} images")

    with closing(Services(settings_of(data_dir))) as services:
        made = make(services, told=told)
    click.echo(f"{made} vectors made; the search uses {services.models.choices('embed')[0]} now")
