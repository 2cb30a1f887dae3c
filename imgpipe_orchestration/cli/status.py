"""`imgpipe status`: how much waits, since when, what failed and why."""

import json
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
from rich.box import SIMPLE
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from imgpipe_orchestration.auto_marker.model import JOB
from imgpipe_orchestration.billing import budgets
from imgpipe_orchestration.cli.options import data_option, imgpipe, json_option, services_of
from imgpipe_orchestration.errors import BackendUnavailable
from imgpipe_orchestration.listings import store as listings
from imgpipe_orchestration.media import pending, store
from imgpipe_orchestration.media.intake import queue_counts
from imgpipe_orchestration.storage import job_instances
from imgpipe_orchestration.storage.rows import transaction
from imgpipe_orchestration.telemetry.logs import one_line
from imgpipe_orchestration.web.texts import duration


@click.command()
@data_option
@json_option
@click.option("--failures", "shown", type=click.IntRange(0), default=10, help="How many failed items to list (10).")
@click.option("--check", is_flag=True, help="End with code 1 when something failed or is stuck for over an hour.")
@click.pass_context
def status(ctx: click.Context, data_dir: Path, as_json: bool, shown: int, check: bool) -> None:
    """Show every queue: waiting, in progress, done, failed, the age of the oldest, stuck over an hour, average time."""
    with services_of(data_dir) as services:
        with transaction(services.engine) as connection:
            stopped = listings.held_up(connection)
            limits = budgets.standings(connection, services.settings.daily_budget_usd)
            deleted = store.deleted_uploads(connection)
            jobs_failed = job_instances.failures(connection, JOB, limit=max(shown, 1))
        dead = services.claims.failures(limit=shown) if shown else []
        held_up = [*stopped, *services.claims.held_up(limit=shown)] if shown else []
        try:
            with transaction(services.pending_engine) as connection:
                images = pending.figures(connection, list(deleted))
        except BackendUnavailable as away:
            if services.pending_engine is services.engine:
                raise
            images = {"error": f"PENDING_IMAGES_DATABASE_URL: {away.public}"}
        queues = queue_counts(services)
        report: dict[str, Any] = {
            "queues": [asdict(counts) for _, counts in sorted(queues.items())],
            "pending_images": images,
            "held_up": [asdict(reason) for reason in held_up],
            "used_up": [{"budget": one.title, "ends": one.ends} for one in limits if one.used_up],
            "failures": [dict(one._mapping) for one in dead if one.queue != JOB],  # its own are job_failures
            "job_failures": [
                {"job": JOB, "customer_id": one.customer_id, "error": one.error, "failed_at": one.finished_at}
                for one in jobs_failed[:shown]
            ],
        }
    if as_json:
        click.echo(json.dumps(report, indent=2, default=_written))
    else:
        _show(report, data_dir)
    wrong = any(queue["failed"] or queue["stuck"] for queue in report["queues"]) or jobs_failed
    ctx.exit(1 if check and (wrong or images.get("stuck", True)) else 0)


def _written(value: object) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)


def _show(report: dict[str, Any], data_dir: Path) -> None:
    console = Console()
    title = "queues (stuck: over an hour)"
    table = Table(title=title, title_justify="left", box=SIMPLE, padding=0)  # a long name fits in 80 columns
    table.add_column("queue", no_wrap=True)
    for heading in ("waiting", "in progress", "done", "failed", "oldest", "stuck", "average"):
        table.add_column(heading, justify="right", no_wrap=True)
    for queue in report["queues"]:
        counts = [str(queue[name]) for name in ("waiting", "claimed", "done", "failed")]
        times = (queue["oldest_waiting_seconds"], queue["average_seconds"])
        oldest, average = ("-" if seconds is None else duration(seconds) for seconds in times)
        table.add_row(queue["queue"], *counts, oldest, str(queue["stuck"]), average)
    console.print(table)
    images = report["pending_images"]
    if "error" in images:
        console.print(f"[red]pending_images[/red]: {escape(images['error'])}", soft_wrap=True)
    else:
        states = ", ".join(f"{images[name]} {name}" for name in ("pending", "processed", "complete", "failed"))
        console.print(f"pending_images: {states}; {images['stuck']} pending for over an hour", soft_wrap=True)
    told: list[tuple[str, str, str]] = []
    for reason in report["held_up"]:
        again = f", again at {reason['due_at'].astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC" if reason["due_at"] else ""
        told.append(("yellow", "waiting", f"{reason['queue']}: {reason['error']} ({_counted(reason, 'item')}{again})"))
    for one in report["used_up"]:
        until = f"its paid work waits until {one['ends'].astimezone(UTC):%Y-%m-%d %H:%M} UTC"
        told.append(("yellow", "used up", f"the {one['budget']}: {until}"))
    for one in report["job_failures"]:
        who = f" for {one['customer_id']}" if one["customer_id"] else ""
        told.append(("red", "failed", f"{one['job']}{who}: {one['error']}"))
    for letter in report["failures"]:
        whose = f" for {letter['tenant']}" if letter["tenant"] else ""
        what = f"{letter['queue']} {letter['item_id']}{whose}"
        told.append(("red", "failed", f"{what}: {letter['error']} ({_counted(letter, 'attempt')})"))
    for colour, word, words in told:
        console.print(f"[{colour}]{word}[/{colour}] {escape(one_line(words))}", soft_wrap=True)
    if report["failures"] or any(reason["due_at"] for reason in report["held_up"]):
        requeue = imgpipe("requeue PIPELINE [ID ...]", data_dir)
        console.print(f"Try them again with: {requeue}", markup=False, soft_wrap=True)


def _counted(of: dict[str, Any], unit: str) -> str:
    count = of["count" if unit == "item" else "attempts"]
    return f"{count} {unit}{'' if count == 1 else 's'}"
