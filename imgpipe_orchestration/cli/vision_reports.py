"""`imgpipe vision-reports run`: what the cron batch processor's script did, with its flags, variables and file."""

import json
import os
import stat
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import click

from imgpipe_orchestration.cli.options import data_option, json_option, settings_of
from imgpipe_orchestration.errors import SettingsError
from imgpipe_orchestration.settings import Settings
from imgpipe_orchestration.telemetry import logs
from imgpipe_orchestration.vision_reports.command import run_now
from imgpipe_orchestration.vision_reports.cron_jobs import check_address
from imgpipe_orchestration.vision_reports.model import ApiAccess
from imgpipe_orchestration.wiring.services import Services

log = logs.logger(__name__)

_NAMES = ("external_api_get_url", "external_api_post_url", "external_api_key", "backend_api_url", "organization_id")
"""The five values: as flags with dashes, as environment variables in capitals, as they are in the file."""


@click.group()
def vision_reports() -> None:
    """Unprocessed analyses in, HTML reports back. Cron jobs over REST do the same on a schedule."""


@vision_reports.command()
@click.option(
    "--config",
    "file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="JSON file with the five values; flags override the environment, which overrides the file.",
)
@click.option("--external-api-get-url", metavar="URL", help="Lists unprocessed analyses.")
@click.option("--external-api-post-url", metavar="URL", help="Takes the reports.")
@click.option("--external-api-key", metavar="TOKEN", help="Bearer token of both. Others see it in the process list.")
@click.option("--backend-api-url", metavar="URL", help="Analysis backend; default our own.")
@click.option("--organization-id", metavar="ID", help="Whose analyses.")
@data_option
@json_option
def run(file: Path | None, data_dir: Path, as_json: bool, **flags: str | None) -> None:
    """One execution now: list, download, analyse, upload, summary. Ends with code 1 unless all of it succeeded.

    Dagster's runs do the work, so the stack must be up.
    """
    settings = settings_of(data_dir)
    logs.configure(style=settings.log_format, level=settings.log_level, file=settings.log_file, shown="WARNING")
    values = _values(flags, file, settings)
    connection = ApiAccess(
        get_url=values["external_api_get_url"],
        post_url=values["external_api_post_url"],
        key=values["external_api_key"],
        backend_url=values["backend_api_url"],
        organization_id=values["organization_id"],
        operators_backend=True,
    )

    def say(line: str) -> None:
        click.echo(line, err=as_json)
        log.info(line)

    with closing(Services(settings)) as services:
        execution = run_now(services, connection, say)
    reason = f": {execution['error'].removesuffix('.')}" if execution["error"] else ""
    summary = (
        f"{execution['status']}{reason}. "
        f"Total {execution['total']}, successful {execution['successful']}, failed {execution['failed']}."
    )
    log.info(summary)
    if as_json:
        shown = {name: value for name, value in execution.items() if name not in {"id", "cron_job_id", "connection"}}
        click.echo(json.dumps(shown, default=str, indent=2))
    else:
        click.echo(summary)
    sys.exit(0 if execution["status"] == "success" else 1)


def _values(flags: dict[str, str | None], file: Path | None, settings: Settings) -> dict[str, str]:
    """Each value from the first place that has it: flag, environment, file, the stack's settings.

    Raises:
        SettingsError: one is missing.
        BadInput: one is not a usable address.
    """
    written = _read(file) if file else {}
    values: dict[str, str] = {}
    for name in _NAMES:
        value = flags.get(name) or os.environ.get(name.upper()) or written.get(name) or getattr(settings, name)
        if not isinstance(value, str) or not value.strip():
            flag = "--" + name.replace("_", "-")
            raise SettingsError(f"{name} is missing: give {flag}, {name.upper()} or a --config file")
        values[name] = value.strip()
        if name.endswith("_url"):
            check_address(name, values[name], production=settings.production)
    return values


def _read(file: Path) -> dict[str, Any]:
    if file.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        click.echo(f"imgpipe: warning: others can read {file}, which holds a key. Run: chmod 600 {file}", err=True)
    try:
        written = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise SettingsError(f"{file} cannot be used: {error}") from error
    if not isinstance(written, dict):
        raise SettingsError(f"{file} must hold a JSON object")
    return written
