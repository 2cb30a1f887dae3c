"""`imgpipe migrate`: the database's schema."""

from __future__ import annotations

import json
from pathlib import Path

import click

from imgpipe_orchestration.cli.options import data_option, json_option, settings_of


@click.command()
@data_option
@json_option
@click.option("--check", is_flag=True, help="Change nothing; end with code 1 when something is pending.")
@click.pass_context
def command(ctx: click.Context, data_dir: Path, as_json: bool, check: bool) -> None:
    """Apply what the schema of DATABASE_URL lacks. `imgpipe up` does this by itself."""
    from imgpipe_orchestration.storage import migrations
    from imgpipe_orchestration.storage.rows import connect, translated

    engine = connect(settings_of(data_dir).database_url, pool_size=1)
    with translated():
        pending = migrations.pending(engine)
        if not check:
            migrations.upgrade(engine)
    engine.dispose()
    if as_json:
        click.echo(json.dumps({"pending" if check else "applied": pending}))
    elif check:
        click.echo(f"pending: {', '.join(pending)}" if pending else "up to date")
    else:
        click.echo(f"applied: {', '.join(pending)}" if pending else "already up to date")
    if check and pending:
        ctx.exit(1)
