"""`imgpipe demo`: the stack fed with real photographs, and a table of what came out."""

import contextlib
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import click
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from imgpipe_orchestration.cli.options import data_option, imgpipe
from imgpipe_orchestration.devstack import stackfile
from imgpipe_orchestration.devstack.demo.report import write
from imgpipe_orchestration.devstack.demo.runner import SCENARIOS, run
from imgpipe_orchestration.devstack.demo.scenario import Result, Stack
from imgpipe_orchestration.errors import BackendUnavailable


@click.command()
@data_option
@click.option("--keep", is_flag=True, help="Leave the stack running; `imgpipe down` stops it.")
@click.option("--only", multiple=True, metavar="PIPELINE", help="This pipeline only; may be repeated.")
def demo(data_dir: Path, keep: bool, only: tuple[str, ...]) -> None:
    """Feed every pipeline through HTTP and wait for what comes out. Exits with code 0 only if everything arrived.

    Uses the stack that runs on the data folder. Otherwise it starts one, which on a terminal stays up until Ctrl-C.
    What went in and came out is in `demo/index.html` in the data folder.
    """
    if {*only} - SCENARIOS.keys():
        raise click.UsageError(f"no such pipeline; there are {', '.join(SCENARIOS)}")
    console = Console()
    ours = stackfile.read(data_dir) is None
    stay = ours and not keep and sys.stdout.isatty()
    _interrupt_on_signals()
    with _stack(data_dir, console, keep=keep) as environment:
        stack = Stack(environment)
        before = _costs(stack)
        results = _run(stack, [name for name in SCENARIOS if not only or name in only], console)
        spent = {name: cost - before.get(name, 0) for name, cost in _costs(stack).items()}
        page = write(data_dir / "demo", results, spent)
        _show(results, console)
        _say_what_to_open(page, environment, console, running=stay or keep or not ours)
        if stay:
            _stay(data_dir, console)
    if stackfile.read(data_dir) is not None:
        console.print(f"The stack goes on running. Stop it with: {imgpipe('down', data_dir)}", soft_wrap=True)
    else:
        console.print(f"The stack has stopped. Start it again with: {imgpipe('up', data_dir)}", soft_wrap=True)
    sys.exit(0 if all(result.ok for result in results) else 1)


def _costs(stack: Stack) -> dict[str, float]:
    """US dollars spent, by pipeline."""
    return {line["name"]: line["cost_usd"] for line in stack.operated("GET", "/api/spending?by=pipeline")["lines"]}


def _say_what_to_open(page: Path, environment: dict[str, str], console: Console, *, running: bool) -> None:
    """What there is to look at, the most interesting first; addresses only of what still answers."""
    gateway = environment["GATEWAY_URL"]
    places = {page.as_uri(): "what went in and what came out, in one file"}
    if running:
        places |= {
            f"{gateway}/media": "the photographs, their sizes and what the AI saw",
            f"{gateway}/": "the five pipelines, live",
            f"{gateway}/upload": "a photograph of your own",
            f"{gateway}/vision-reports": "cron jobs and their reports",
            f"{gateway}/avatars": "people who do not exist",
            f"{gateway}/failures": "what was refused, and why",
            environment["DAGSTER_URL"]: "runs, assets and schedules in Dagster",
        }
    console.print("Open:")
    for place, what in places.items():
        console.print(f"  {place}  [dim]{what}[/dim]", soft_wrap=True)


def _stay(data_dir: Path, console: Console) -> None:
    """Keep the stack up until Ctrl-C, or until somebody else stops it."""
    console.print("The stack stays up. Ctrl-C stops it.")
    try:
        while stackfile.read(data_dir) is not None:
            time.sleep(0.5)
    except KeyboardInterrupt:
        console.print()


def _interrupt_on_signals() -> None:
    """A closed terminal and `kill` stop the demo as Ctrl-C does, with the stack that it started."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler)


@contextlib.contextmanager
def _stack(data_dir: Path, console: Console, *, keep: bool) -> Iterator[dict[str, str]]:
    """The environment of the running stack; if there is none, one is started, and stopped unless `keep`."""
    running = stackfile.read(data_dir)
    if running is not None:
        console.print(f"using the stack that runs on {data_dir} (process {running.pid})")
        yield running.environment
        return
    log, done = data_dir / "logs" / "up.log", False
    process = _launch(data_dir, log)
    try:
        with console.status("starting the stack: databases, stand-in partners, gateway, Dagster"):
            began = time.monotonic()
            stack = _started(process, data_dir, log)
        took, environment = time.monotonic() - began, stack.environment
        for note in stack.notes:
            console.print(note, soft_wrap=True)
        urls = f"gateway {environment['GATEWAY_URL']}, Dagster {environment['DAGSTER_URL']}"
        console.print(f"the stack is up after {took:.1f} s: {urls}", soft_wrap=True)
        yield environment
        done = True
    finally:
        if not (keep and done):
            with console.status("stopping the stack"):
                process.terminate()
                process.wait()


def _launch(data_dir: Path, log: Path) -> subprocess.Popen[bytes]:
    """Start `imgpipe up` in a session of its own, so that it can outlive this process and gets no Ctrl-C of it."""
    command = [sys.executable, "-m", "imgpipe_orchestration.cli", "up", "--data", str(data_dir)]
    log.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    log.touch(0o640)
    with log.open("wb") as output:
        return subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )


def _started(process: subprocess.Popen[bytes], data_dir: Path, log: Path) -> stackfile.RunningStack:
    """The stack that is starting, once it is up.

    Raises:
        BackendUnavailable: it did not start; says why.
    """
    while (stack := stackfile.read(data_dir)) is None:
        if process.poll() is not None:
            said = log.read_text(errors="replace").strip()
            raise BackendUnavailable(f"The stack did not start:\n{said or f'{log} is empty: is the disk full?'}")
        time.sleep(0.1)
    return stack


def _run(stack: Stack, pipelines: list[str], console: Console) -> list[Result]:
    far = dict.fromkeys(pipelines, "is fed")
    with console.status("feeding the pipelines") as status:

        def show(result: Result) -> None:
            far[result.pipeline] = "is ready" if result.finished else f"{result.arrived} of {result.items}"
            status.update(", ".join(f"{pipeline} {words}" for pipeline, words in far.items()))

        return run(stack, pipelines, show)


def _show(results: list[Result], console: Console) -> None:
    table = Table(title="what came out", title_justify="left")
    table.add_column("pipeline")
    for heading in ("items", "failed", "refused on purpose", "seconds"):
        table.add_column(heading, justify="right")
    for result in results:
        failed = f"[red]{result.failed}[/red]" if result.failures else str(result.failed)
        numbers = (str(result.items), failed, str(len(result.refused)), f"{result.seconds:.1f}")
        table.add_row(result.pipeline, *numbers)
    console.print(table)
    for result in results:
        for failure in result.failures:
            console.print(f"[red]{result.pipeline}[/red]: {escape(failure)}", soft_wrap=True)
        for what, why in result.refused.items():
            counted = "failed, on purpose" if result.failed_on_purpose else "refused on purpose"
            console.print(f"{result.pipeline}: {counted}: {escape(f'{what}: {why}')}", soft_wrap=True)
    if all(result.ok for result in results):
        console.print("[green]everything arrived[/green]")
