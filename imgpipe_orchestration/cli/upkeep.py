"""`imgpipe requeue`, `moderate`, `gc`, `migrate` and `keys`: what an operator does now and then."""

import json
import re
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from pathlib import Path

import click

from imgpipe_orchestration.cli.options import ID, data_option, json_option, retyped, services_of, settings_of
from imgpipe_orchestration.identity import audit
from imgpipe_orchestration.identity import keys as named
from imgpipe_orchestration.identity.model import Role
from imgpipe_orchestration.settings import CENTURY_DAYS


@click.command()
@click.argument("pipeline")
@click.argument("ids", type=ID, nargs=-1, metavar="[ID ...]")
@data_option
@json_option
@click.pass_context
def requeue(ctx: click.Context, pipeline: str, ids: tuple[int, ...], data_dir: Path, as_json: bool) -> None:
    """Give the failed items of PIPELINE (all, or those with these IDs) fresh attempts, and end the pauses of those that
    wait for a later moment, and of all providers.

    PIPELINE is a pipeline's name or that of one of its queues, IDs are as `imgpipe status` shows them; with a
    pipeline's name they are looked for in its main queue. Ends with code 1 when an ID is neither failed nor pausing.
    """
    from imgpipe_orchestration.operations.pipelines import end_pauses, queues

    with services_of(data_dir) as services:
        wanted = queues(pipeline)
        chosen = list(ids) or None
        if chosen:
            wanted = wanted[:1]
        with audit.by_command(services.engine, "requeue", " ".join([pipeline, *map(str, ids)])):
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


@click.command()
@data_option
@click.option("--existing", "judge", is_flag=True, help="Judge what has no verdict; it stays shown meanwhile.")
@click.option("--hide", is_flag=True, help="With --existing: hold each image back until its verdict.")
@click.option("--release", is_flag=True, help="Show what is held only because no verdict came.")
@click.option("--yes", is_flag=True, help="Do not ask.")
def moderate(data_dir: Path, judge: bool, hide: bool, release: bool, yes: bool) -> None:
    """Count what has no verdict, with its cost. --existing judges it, --release shows what waits for one.

    Runs of the job `moderation` then judge it, at the rate that the provider allows.
    """
    from imgpipe_orchestration.operations import existing

    if (hide and not judge) or (judge and release):
        raise click.UsageError("--hide goes with --existing, --release with neither")
    with services_of(data_dir) as services:
        found = existing.look(services)
        cost = "no provider configured" if found.usd is None else f"{found.provider} costs at most {found.usd:.2f} USD"
        click.echo(f"{found.unjudged:,} without a verdict ({cost}); {found.unshown:,} held only because they have none")
        if not (judge or release):
            return
        if not yes:
            click.confirm(f"{'Hide and judge' if hide else 'Judge' if judge else 'Release'} them?", abort=True)
        if judge:
            click.echo(f"{existing.judge(services, hide=hide):,} wait for their verdict")
        else:
            click.echo(f"{existing.release(services):,} shown again")


@click.command()
@click.argument("pipelines", nargs=-1, metavar="[PIPELINE ...]")
@data_option
@json_option
@click.option("--delete", "act", is_flag=True, help="Delete garbage and have what is missing made again.")
@click.option("--even-most", is_flag=True, help="With --delete: also where most of a bucket is garbage.")
@click.option(
    "--grace-hours", type=click.IntRange(0, 24 * CENTURY_DAYS), help="Younger objects stay. Whole hours; default: 24."
)
@click.pass_context
def gc(
    ctx: click.Context,
    pipelines: tuple[str, ...],
    data_dir: Path,
    as_json: bool,
    act: bool,
    even_most: bool,
    grace_hours: int | None,
) -> None:
    """Look through the object store of all pipelines or of those named. Changes nothing without --delete.

    Ends with code 1 if objects are missing for good (originals, and what was made from a missing one), or if a bucket
    would lose most of its objects, in which case it is left alone. Without --delete every missing object counts,
    because nothing is made again.
    """
    from imgpipe_orchestration.operations.tidying import GRACE_HOURS, collect_garbage

    hours = GRACE_HOURS if grace_hours is None else grace_hours
    with services_of(data_dir) as services:
        found = collect_garbage(services, pipelines, act=act, grace_hours=hours, even_most=even_most)
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


@click.command()
@data_option
@json_option
@click.option("--check", is_flag=True, help="Change nothing; end with code 1 when something is pending.")
@click.pass_context
def migrate(ctx: click.Context, data_dir: Path, as_json: bool, check: bool) -> None:
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


def _days(value: str) -> float:
    """A time such as `90d`, `12h` or `2w`, in days."""
    found = re.fullmatch(r"(\d{1,6})([hdw])", value.strip())
    if not found:
        raise click.BadParameter("write a number and h, d or w, such as 90d")
    return int(found[1]) * {"h": 1 / 24, "d": 1, "w": 7}[found[2]]


@click.group()
def keys() -> None:
    """Named keys: each lets one machine in, with one role, until it expires or is revoked."""


@keys.command()
@click.argument("name")
@click.option("--role", type=click.Choice(["viewer", "operator", "admin"]), required=True)
@click.option("--expires", type=_days, metavar="TIME", help="When the key expires, such as 90d. Default: never.")
@data_option
def create(name: str, role: str, expires: float | None, data_dir: Path) -> None:
    """Make the key NAME and print it. It is shown this once; only its hash is stored."""
    with services_of(data_dir) as services, audit.by_command(services.engine, "create key", name) as entry:
        entry.after = {"role": role, "expires_days": expires}
        assert entry.caller is not None  # noqa: S101 - a command has one
        _, key = named.create(services.engine, name, Role(role), by=entry.caller.name, days=expires)
    click.echo(key)


@keys.command("list")
@data_option
@json_option
def list_(data_dir: Path, as_json: bool) -> None:
    """List the keys, not the secrets themselves, newest first."""
    with services_of(data_dir) as services:
        found = named.every(services.engine)
    if as_json:
        click.echo(json.dumps([asdict(key) for key in found], indent=2, default=datetime.isoformat))
        return
    for key in found:
        ended = f"ended {key.revoked_at.isoformat()}" if key.revoked_at else ""
        ends = f"until {key.expires_at.isoformat()}" if key.expires_at else "without expiry"
        made = f"made {key.created_at.isoformat()} by {key.created_by}"
        click.echo(f"{key.name}: {key.role}, {made}, {ended or ends}")


@keys.command()
@click.argument("name")
@data_option
def revoke(name: str, data_dir: Path) -> None:
    """Revoke the key NAME. Every gateway refuses it within 6 s."""
    with services_of(data_dir) as services, audit.by_command(services.engine, "revoke key", name):
        named.revoke(services.engine, name)
    click.echo(f"{name} is revoked")
