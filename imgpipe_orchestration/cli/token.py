"""`imgpipe token`: a user's token, to try uploads by hand."""

from __future__ import annotations

import time
from pathlib import Path

import click

from imgpipe_orchestration.cli.options import Id, data_option, settings_of

_HOURS = 12


@click.command()
@click.argument("user", type=Id())
@data_option
def command(user: int, data_dir: Path) -> None:
    """Print a token of USER (a number) for `Authorization: Bearer`, good for twelve hours.

    Not in production, where whoever signs the users in makes their tokens: nobody should act as somebody else.
    """
    import jwt

    settings = settings_of(data_dir)
    if settings.production:
        raise click.UsageError("in production users' tokens come from where they sign in")
    claims = {"sub": str(user), "exp": int(time.time()) + _HOURS * 3600}
    click.echo(jwt.encode(claims, settings.user_jwt_secret, "HS256"))
