"""`imgpipe moderate --existing`: verdicts on what was there before anybody judged."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import click

from imgpipe_orchestration.cli.options import data_option, settings_of


@click.command()
@data_option
@click.option("--existing", "action", flag_value="judge", help="Judge what has no verdict; it stays shown meanwhile.")
@click.option("--hide", is_flag=True, help="With --existing: hold each image back until its verdict.")
@click.option("--release", "action", flag_value="release", help="Show what is held only because no verdict came.")
@click.option("--yes", is_flag=True, help="Do not ask.")
def command(data_dir: Path, action: str | None, hide: bool, yes: bool) -> None:
    """Say how much has no verdict and what judging it costs; with --existing do it, with --release show it.

    Runs of the job `moderation` then judge it, at the rate that the provider allows.
    """
    from imgpipe_orchestration.moderation import existing
    from imgpipe_orchestration.services import Services

    with closing(Services(settings_of(data_dir))) as services:
        found = existing.look(services)
        cost = "nobody judges here" if found.usd is None else f"{found.provider} costs at most {found.usd:.2f} USD"
        click.echo(f"{found.unjudged:,} without a verdict ({cost}); {found.unshown:,} held for want of one")
        if action is None:
            return
        if not yes:
            click.confirm("Hide and judge them?" if hide else f"{action.capitalize()} them?", abort=True)
        if action == "judge":
            click.echo(f"{existing.judge(services, hide=hide):,} wait for their verdict")
        else:
            click.echo(f"{existing.release(services):,} shown again")
