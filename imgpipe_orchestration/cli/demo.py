"""`imgpipe demo`: the stack fed with real photographs, and a table of what came out."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from imgpipe_orchestration.cli.options import data_option, imgpipe, json_option
from imgpipe_orchestration.devstack import stackfile
from imgpipe_orchestration.errors import BackendUnavailable

if TYPE_CHECKING:
    from rich.console import Console

    from imgpipe_orchestration.devstack.demo.runner import Result
    from imgpipe_orchestration.devstack.demo.scenario import Scenario, Stack


@click.command()
@data_option
@json_option
@click.option("--keep", is_flag=True, help="Leave the stack running; `imgpipe down` stops it.")
@click.option("--only", multiple=True, metavar="PIPELINE", help="This pipeline only; may be repeated.")
def command(data_dir: Path, as_json: bool, keep: bool, only: tuple[str, ...]) -> None:
    """Feed every pipeline through HTTP and wait for what comes out. Ends with code 0 only if everything arrived.

    Uses the stack that runs on the data folder, or starts one and stops it again.
    """
    from rich.console import Console

    from imgpipe_orchestration.devstack.demo.runner import scenarios
    from imgpipe_orchestration.devstack.demo.scenario import Stack

    kinds = scenarios(only)
    if {*only} - {kind.pipeline for kind in kinds}:
        raise click.UsageError(f"no such pipeline; there are {', '.join(k.pipeline for k in scenarios())}")
    console = Console(stderr=as_json)
    with _interrupted_by_signals(), _stack(data_dir, console, keep=keep) as environment:
        results = _run(Stack(environment), kinds, console)
        if as_json:
            click.echo(json.dumps([{**asdict(result), "ok": result.ok} for result in results], indent=2))
        else:
            _show(results, console)
    where = f"gateway {environment['GATEWAY_URL']}, Dagster {environment['DAGSTER_URL']}"
    if stackfile.read(data_dir) is not None:
        console.print(f"It goes on running: {where}. Stop it with: {imgpipe('down', data_dir)}", soft_wrap=True)
    else:
        console.print(f"Stopped again. To look at all this: {imgpipe('up', data_dir)}", soft_wrap=True)
    sys.exit(0 if all(result.ok for result in results) else 1)


@contextlib.contextmanager
def _interrupted_by_signals() -> Iterator[None]:
    """A closed terminal and `kill` stop the demo as Ctrl-C does, with the stack that it started."""
    numbers = [n for n in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(n) is not signal.SIG_IGN]
    before = {number: signal.signal(number, signal.default_int_handler) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def _stack(data_dir: Path, console: Console, *, keep: bool) -> Iterator[dict[str, str]]:
    """The environment of the running stack; if there is none, one is started, and stopped unless `keep`."""
    from imgpipe_orchestration.devstack.demo.runner import let_runs_end
    from imgpipe_orchestration.devstack.demo.scenario import Stack

    running = stackfile.read(data_dir)
    if running is not None:
        console.print(f"using the stack that runs on {data_dir} (process {running.pid})")
        yield running.environment
        return
    process, done = _launch(data_dir), False
    try:
        with console.status("starting the stack: databases, stand-in partners, gateway, Dagster"):
            began = time.monotonic()
            stack = _started(process, data_dir)
        took, environment = time.monotonic() - began, stack.environment
        for note in stack.notes:
            console.print(note, soft_wrap=True)
        urls = f"gateway {environment['GATEWAY_URL']}, Dagster {environment['DAGSTER_URL']}"
        console.print(f"the stack is up after {took:.1f} s: {urls}", soft_wrap=True)
        yield environment
        done = True
        if not keep:
            with console.status("letting the runs end"):
                let_runs_end(Stack(environment))
    finally:
        if not (keep and done):
            with console.status("stopping the stack"):
                _stop(process)


def _launch(data_dir: Path) -> subprocess.Popen[bytes]:
    """Start `imgpipe up` in a session of its own, so that it can outlive this process and gets no Ctrl-C of it."""
    log = _log(data_dir)
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as output:
        return subprocess.Popen(
            [sys.executable, "-m", "imgpipe_orchestration.cli", "up", "--data", str(data_dir)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def _log(data_dir: Path) -> Path:
    return data_dir / "logs" / "up.log"


def _started(process: subprocess.Popen[bytes], data_dir: Path) -> stackfile.RunningStack:
    """The stack that is starting, once it is up.

    Raises:
        BackendUnavailable: it did not start; says why.
    """
    while (stack := stackfile.read(data_dir)) is None:
        if process.poll() is not None:
            said = _log(data_dir).read_text(errors="replace").strip()
            nothing = f"it could not even write to {_log(data_dir)}: is the disk full?"
            raise BackendUnavailable(f"The stack did not start:\n{said or nothing}")
        time.sleep(0.1)
    return stack


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.wait()
    except KeyboardInterrupt:
        process.send_signal(signal.SIGTERM)  # a second one kills what is left at once
        process.wait()
        raise


def _run(stack: Stack, kinds: list[type[Scenario]], console: Console) -> list[Result]:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    from imgpipe_orchestration.devstack.demo.runner import run

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[note]}", markup=False),
    )
    with Progress(*columns, console=console) as progress:
        tasks = {kind.pipeline: progress.add_task(kind.pipeline, total=None, note="feeding") for kind in kinds}

        def show(result: Result) -> None:
            note = "; ".join(result.failures) if result.failures else result.waiting_for
            if result.ok:
                note = "everything arrived"
            task = tasks[result.pipeline]
            progress.update(task, total=result.items, completed=result.arrived, note=note)
            if result.finished:
                progress.stop_task(task)

        return run(stack, kinds, show)


def _show(results: list[Result], console: Console) -> None:
    from rich.markup import escape
    from rich.table import Table

    table = Table(title="what came out", title_justify="left")
    table.add_column("pipeline")
    for heading in ("items", "failed", "seconds"):
        table.add_column(heading, justify="right")
    for result in results:
        failed = len(result.failures)
        table.add_row(
            result.pipeline,
            str(result.items),
            f"[red]{failed}[/red]" if failed else "0",
            f"{result.seconds:.1f}",
        )
    console.print(table)
    for result in results:
        for failure in result.failures:
            console.print(f"[red]{result.pipeline}[/red]: {escape(failure)}", soft_wrap=True)
        # Below the table, because links that are folded in a cell cannot be clicked.
        for link in result.links:
            console.print(f"{result.pipeline}: {link}", soft_wrap=True)
