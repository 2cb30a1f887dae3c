"""`imgpipe keys`: named keys for machines."""

from __future__ import annotations

import json
import re
from dataclasses import asdict
from datetime import datetime
from pathlib import Path

import click

from imgpipe_orchestration.cli.options import data_option, json_option, services_of
from imgpipe_orchestration.errors import BadInput


class Days(click.ParamType[float]):
    """A time such as `90d`, `12h` or `2w`, in days."""

    name = "TIME"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float:
        found = re.fullmatch(r"(\d{1,6})([hdw])", str(value).strip())
        if not found:
            self.fail("write a number and h, d or w, such as 90d", param, ctx)
        return int(found[1]) * {"h": 1 / 24, "d": 1, "w": 7}[found[2]]


@click.group()
def keys() -> None:
    """Named keys: each lets one machine in, with one role, until it expires or is revoked."""


@keys.command()
@click.argument("name")
@click.option("--role", type=click.Choice(["viewer", "operator", "admin"]), required=True)
@click.option("--expires", type=Days(), help="When the key ends, such as 90d. Without it, it does not.")
@data_option
def create(name: str, role: str, expires: float | None, data_dir: Path) -> None:
    """Make the key NAME and print it. It is shown this once; only its hash is stored."""
    from imgpipe_orchestration.identity import audit
    from imgpipe_orchestration.identity import keys as named
    from imgpipe_orchestration.identity.model import Role

    with services_of(data_dir) as services, audit.by_command(services.engine, "create key", name) as entry:
        entry.after = {"role": role, "expires_days": expires}
        assert entry.caller is not None  # noqa: S101 - a command has one
        try:
            _, key = named.create(services.engine, name, Role(role), by=entry.caller.name, days=expires)
        except BadInput as error:
            raise click.BadParameter(error.public) from error
    click.echo(key)


@keys.command("list")
@data_option
@json_option
def list_(data_dir: Path, as_json: bool) -> None:
    """Every key but not the keys themselves, the newest first."""
    from imgpipe_orchestration.identity import keys as named

    with services_of(data_dir) as services:
        found = named.every(services.engine)
    if as_json:
        click.echo(json.dumps([asdict(key) for key in found], indent=2, default=datetime.isoformat))
        return
    for key in found:
        ended = f"ended {key.revoked_at.isoformat()}" if key.revoked_at else ""
        ends = f"until {key.expires_at.isoformat()}" if key.expires_at else "without an end"
        made = f"made {key.created_at.isoformat()} by {key.created_by}"
        click.echo(f"{key.name}: {key.role}, {made}, {ended or ends}")


@keys.command()
@click.argument("name")
@data_option
def revoke(name: str, data_dir: Path) -> None:
    """End the key NAME. Every gateway refuses it within 6 s."""
    from imgpipe_orchestration.identity import audit
    from imgpipe_orchestration.identity import keys as named

    with services_of(data_dir) as services, audit.by_command(services.engine, "revoke key", name):
        named.revoke(services.engine, name)
    click.echo(f"{name} is revoked")
