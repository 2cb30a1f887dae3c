"""`imgpipe doctor`: whether every setting is valid and everything the project depends on can be reached.

Each check looks at one thing, changes nothing, buys nothing, and says what to do when it fails.
"""

import json
from collections.abc import Callable
from concurrent.futures import wait
from contextlib import closing
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

import click
import requests
from rich.console import Console
from rich.markup import escape

from imgpipe_orchestration.cli import diagnosis
from imgpipe_orchestration.cli.diagnosis import MIGRATE, Bad, Verdict
from imgpipe_orchestration.cli.options import data_option, json_option, retyped, settings_in_force
from imgpipe_orchestration.devstack import stackfile
from imgpipe_orchestration.errors import ImgpipeError, NotMigrated, OutOfSpace
from imgpipe_orchestration.partners.daemon_threads import in_daemon_thread
from imgpipe_orchestration.settings import Settings
from imgpipe_orchestration.telemetry.logs import one_line
from imgpipe_orchestration.telemetry.redaction import redact
from imgpipe_orchestration.wiring.services import Services

_REMEDIES = {NotMigrated: MIGRATE, OutOfSpace: "Make room on its disk. What was accepted waits and goes on by itself."}


@dataclass(frozen=True)
class Finding:
    """One thing looked at, what was seen, and what to do about it."""

    what: str
    verdict: Verdict
    seen: str
    do: str = ""


Check = tuple[str, str, Callable[[Services], str]]
"""What is looked at, the advice for when it is not well, and a function of `diagnosis`."""


def _finding(services: Services, what: str, do: str, look: Callable[[Services], str]) -> Finding:
    verdict = Verdict.BAD
    try:
        return Finding(what, Verdict.OK, look(services))
    except Bad as ended:
        verdict, seen, do = ended.verdict, str(ended), ended.do or do
    except ImgpipeError as error:
        seen, do = f"{error.public} {error.detail or ''}".strip(), _REMEDIES.get(type(error), do)
    except requests.RequestException as error:
        where = error.request.url if error.request is not None else "there"
        seen = f"no answer from {where} ({type(error).__name__})"
    except Exception as error:  # drivers raise all kinds of exceptions
        seen = f"{type(error).__name__}: {error}"
    return Finding(what, verdict, redact(seen), do)


@click.command()
@data_option
@json_option
@click.pass_context
def doctor(ctx: click.Context, data_dir: Path, as_json: bool) -> None:
    """Check every setting and everything the project depends on. Ends with code 1 when something does not work."""
    findings = diagnose(settings_in_force(data_dir))
    bad = any(finding.verdict is Verdict.BAD for finding in findings)
    if as_json:
        click.echo(json.dumps([asdict(finding) for finding in findings], indent=2))
        ctx.exit(1 if bad else 0)
    console = Console()
    stack = stackfile.read(data_dir)
    state = "is starting or stopping; try again in a moment" if stackfile.is_running(data_dir) else "does not run"
    console.print(f"stack on {data_dir}: {f'runs, process {stack.pid}' if stack else state}", soft_wrap=True)
    marks = {Verdict.OK: "[green]ok  [/green]", Verdict.NOTE: "[yellow]note[/yellow]", Verdict.BAD: "[red]bad [/red]"}
    for finding in findings:
        seen = escape(one_line(" ".join(retyped(finding.seen).split())))  # drivers say things in several lines
        console.print(f"{marks[finding.verdict]} {finding.what}: {seen}", soft_wrap=True)
        if finding.do:
            console.print(f"     {escape(one_line(retyped(finding.do)))}", soft_wrap=True)
    ctx.exit(1 if bad else 0)


def diagnose(settings: Settings, *, patience: float = 30) -> list[Finding]:
    """Run every check, all at the same time; the findings are in a fixed order.

    Args:
        patience: seconds after which a check that has not ended is BAD: S3's client retries a frozen server for 90 s.
            A busy machine needs some of them for imports.
    """
    checks = _checks(settings)
    with closing(Services(settings)) as services:
        asked = [in_daemon_thread(partial(_finding, services, *check), check[0]) for check in checks]
        wait(asked, patience)
        silent = f"has not answered for {patience:g} seconds"
        return [
            answer.result() if answer.done() else Finding(what, Verdict.BAD, silent, do)
            for (what, do, _), answer in zip(checks, asked, strict=True)
        ]


def _checks(settings: Settings) -> list[Check]:
    ours = "." if settings.production else "; `imgpipe up` starts one when it is not set."

    def start(part: str) -> str:
        # In production it may be a service of its own, beside which `imgpipe up` would start a second daemon.
        if settings.production:
            return "Start its service; if it runs, read its log."
        return f"Start `imgpipe up`; if it runs, read logs/{part}.log in the data folder, and kill {part} if it hangs."

    stack = stackfile.read(settings.imgpipe_data_dir)
    where = {one["name"]: urlsplit(one["url"]).netloc.rpartition("@")[2] for one in stack.parts} if stack else {}

    def advice(part: str, url: str, otherwise: str) -> str:
        return start(part) if part in where and where[part] in url else otherwise

    s3 = advice("s3", settings.s3_endpoint, f"Check S3_ENDPOINT and its keys{ours}")
    database = advice("postgres", settings.database_url, f"Check DATABASE_URL{ours}")
    mongo = advice("mongo", settings.mongodb_url, f"Check MONGODB_URL{ours}")
    stand_ins = "" if settings.models_file else "stand-ins"
    openai = advice(stand_ins, settings.openai_base_url, "Check OPENAI_API_KEY and OPENAI_BASE_URL, or MODELS_FILE.")
    google = "Check GOOGLE_VISION_API_KEY and GOOGLE_VISION_ENDPOINT."
    google = advice(stand_ins, settings.google_vision_endpoint, google)
    flowise = advice(stand_ins, settings.flowise_base_url, "Check FLOWISE_BASE_URL.")
    daemon = (
        "Look at Deployment > Daemons and Automation in the Dagster UI: the daemon is down, its clock was set back and "
        "has not caught up, pending_images_sensor is off, or the code does not load. Without ticks no run starts."
    )
    workers = "Check CELERY_BROKER_URL; start a worker for the queues that lack one (docs/scaling.md)."
    return [
        ("settings", "Fix it and start again; docs/settings.md shows the format.", diagnosis.settings),
        ("keys", "Set your own, and IMGPIPE_ENV=production, before anybody else can connect.", diagnosis.keys),
        ("sign-in", "Check OIDC_ISSUER, and that this machine reaches it.", diagnosis.sign_in),
        ("public addresses", "Set them to what clients reach from outside.", diagnosis.addresses),
        ("disk", "Free some space: PostgreSQL refuses writes on a full disk.", diagnosis.disk),
        ("database", database, diagnosis.database),
        ("pending_images", "Check PENDING_IMAGES_DATABASE_URL.", diagnosis.pending_images),
        ("Dagster's database", "Check DAGSTER_PG_URL.", diagnosis.dagster_database),
        *((f"bucket {name}", s3, partial(diagnosis.bucket, name)) for name in settings.buckets),
        ("MongoDB", mongo, diagnosis.mongo),
        ("gateway", start("gateway"), partial(diagnosis.server, "gateway_url", "/health")),
        ("Dagster UI", start("dagster-webserver"), diagnosis.dagster_ui),
        ("Dagster daemon", daemon, diagnosis.daemon),
        ("workers", workers, diagnosis.workers),
        ("OpenAI", openai, diagnosis.openai),
        ("Google Vision", google, diagnosis.google_vision),
        ("Flowise", flowise, diagnosis.flowise),
    ]
