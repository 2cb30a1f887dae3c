"""`imgpipe doctor`: whether every setting is valid and everything the project depends on can be reached.

Each check looks at one thing, changes nothing, buys nothing, and says what to do when it fails.
"""

import json
from collections.abc import Callable
from concurrent.futures import wait
from contextlib import closing, suppress
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import click
import requests
from rich.console import Console
from rich.markup import escape

from imgpipe_orchestration.cli import diagnosis
from imgpipe_orchestration.cli.diagnosis import MIGRATE, Bad, Verdict
from imgpipe_orchestration.cli.options import data_option, json_option, retyped, settings_in_force
from imgpipe_orchestration.devstack import stackfile
from imgpipe_orchestration.errors import ImgpipeError, NotMigrated, OutOfSpace
from imgpipe_orchestration.services import Services
from imgpipe_orchestration.settings import Settings
from imgpipe_orchestration.telemetry.logs import one_line
from imgpipe_orchestration.telemetry.redaction import redact
from imgpipe_orchestration.web.daemon_threads import in_daemon_thread

_REMEDIES = {NotMigrated: MIGRATE, OutOfSpace: "Make room on its disk. What was accepted waits and goes on by itself."}


@dataclass(frozen=True)
class Finding:
    """One thing looked at, what was seen, and what to do about it."""

    what: str
    verdict: Verdict
    seen: str
    do: str = ""


@dataclass(frozen=True)
class Check:
    """Looks at one thing. Never raises: what `look` raises is the finding.

    Attributes:
        do: advice for when `look` raises.
        look: returns what it saw when all is well.
    """

    what: str
    do: str
    look: Callable[[Services], str]

    def __call__(self, services: Services) -> Finding:
        verdict, do = Verdict.BAD, self.do
        try:
            return Finding(self.what, Verdict.OK, self.look(services))
        except Bad as ended:
            verdict, seen, do = ended.verdict, str(ended), ended.do or do
        except ImgpipeError as error:
            seen, do = f"{error.public} {error.detail or ''}".strip(), _REMEDIES.get(type(error), do)
        except requests.RequestException as error:
            where = error.request.url if error.request is not None else "there"
            seen = f"no answer from {where} ({type(error).__name__})"
        except Exception as error:  # drivers raise all kinds of exceptions
            seen = f"{type(error).__name__}: {error}"
        return Finding(self.what, verdict, redact(seen), do)


@click.command()
@data_option
@json_option
@click.pass_context
def doctor(ctx: click.Context, data_dir: Path, as_json: bool) -> None:
    """Look at every setting and everything the project depends on. Ends with code 1 when something does not work."""
    findings = diagnose(settings_in_force(data_dir))
    bad = any(finding.verdict is Verdict.BAD for finding in findings)
    if as_json:
        click.echo(json.dumps([asdict(finding) for finding in findings], indent=2))
        ctx.exit(1 if bad else 0)
    console = Console()
    stack = stackfile.read(data_dir)
    console.print(f"stack on {data_dir}: " + (f"runs, process {stack.pid}" if stack else "does not run"))
    marks = {Verdict.OK: "[green]ok  [/green]", Verdict.NOTE: "[yellow]note[/yellow]", Verdict.BAD: "[red]bad [/red]"}
    for finding in findings:
        seen = escape(one_line(" ".join(retyped(finding.seen).split())))  # drivers say things in several lines
        console.print(f"{marks[finding.verdict]} {finding.what}: {seen}", soft_wrap=True)
        if finding.do:
            console.print(f"     {escape(one_line(retyped(finding.do)))}", soft_wrap=True)
    ctx.exit(1 if bad else 0)


def diagnose(settings: Settings, *, patience: float = 15) -> list[Finding]:
    """Run every check, all at the same time; the findings are in a fixed order.

    Args:
        patience: seconds after which a check that has not ended is BAD: S3's client retries a frozen server for 90 s.
    """
    with closing(Services(settings)) as services:
        _prepare(services)
        asked = [(one, in_daemon_thread(partial(one, services), one.what)) for one in _checks(settings)]
        wait([answer for _, answer in asked], patience)
        silent = f"has not answered for {patience:g} seconds"
        return [
            answer.result() if answer.done() else Finding(one.what, Verdict.BAD, silent, one.do)
            for one, answer in asked
        ]


def _prepare(services: Services) -> None:
    """Import and make what the checks use. On a busy machine that takes longer than servers take to answer, and all of
    them would be called silent."""
    with suppress(Exception):  # its checks will say what is wrong with it
        _ = services.media_bucket.store.client
    if services.settings.mongodb_url:
        import pymongo  # noqa: F401
    if services.settings.openai_api_key or services.settings.models_file:
        import openai  # noqa: F401


def _checks(settings: Settings) -> list[Check]:
    ours = "." if settings.production else "; `imgpipe up` starts one when it is not set."

    def start(part: str) -> str:
        # In production it may be a service of its own, beside which `imgpipe up` would start a second daemon.
        if settings.production:
            return "Start its service; if it runs, read its log."
        return f"Start `imgpipe up`; if it runs, read logs/{part}.log in the data folder, and kill {part} if it hangs."

    s3 = f"Check S3_ENDPOINT and its keys{ours}"
    daemon = (
        "Look at Deployment > Daemons and Automation in the Dagster UI: the daemon does not run, pending_images_sensor "
        "is switched off, or the code does not load. Without ticks no run starts."
    )
    workers = "Check CELERY_BROKER_URL; start a worker for the queues that lack one (docs/scaling.md)."
    return [
        Check("settings", "Fix it and start again; docs/settings.md shows the format.", diagnosis.settings),
        Check("keys", "Set your own, and IMGPIPE_ENV=production, before anybody else can connect.", diagnosis.keys),
        Check("sign-in", "Check OIDC_ISSUER, and that this machine reaches it.", diagnosis.sign_in),
        Check("public addresses", "Set them to what clients reach from outside.", diagnosis.addresses),
        Check("disk", "Free some space: PostgreSQL refuses writes on a full disk.", diagnosis.disk),
        Check("database", f"Check DATABASE_URL{ours}", diagnosis.database),
        Check("pending_images", "Check PENDING_IMAGES_DATABASE_URL.", diagnosis.pending_images),
        Check("Dagster's database", "Check DAGSTER_PG_URL.", diagnosis.dagster_database),
        *(Check(f"bucket {name}", s3, partial(diagnosis.bucket, name)) for name in settings.buckets),
        Check("MongoDB", f"Check MONGODB_URL{ours}", diagnosis.mongo),
        Check("gateway", start("gateway"), partial(diagnosis.server, "gateway_url", "/health")),
        Check("Dagster UI", start("dagster-webserver"), partial(diagnosis.server, "dagster_url", "/server_info")),
        Check("Dagster daemon", daemon, diagnosis.daemon),
        Check("workers", workers, diagnosis.workers),
        Check("OpenAI", "Check OPENAI_API_KEY and OPENAI_BASE_URL, or MODELS_FILE.", diagnosis.openai),
        Check("Google Vision", "Check GOOGLE_VISION_API_KEY and GOOGLE_VISION_ENDPOINT.", diagnosis.google_vision),
        Check("Flowise", "Check FLOWISE_BASE_URL.", diagnosis.flowise),
    ]
