"""`imgpipe doctor`: what is wrong, and what to do."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import click

from imgpipe_orchestration.cli.options import data_option, json_option, retyped, settings_in_force
from imgpipe_orchestration.telemetry.logs import one_line


@click.command()
@data_option
@json_option
@click.pass_context
def doctor(ctx: click.Context, data_dir: Path, as_json: bool) -> None:
    """Look at every setting and everything the project depends on. Ends with code 1 when something does not work."""
    from rich.console import Console
    from rich.markup import escape

    from imgpipe_orchestration.cli.diagnosis.check import Verdict
    from imgpipe_orchestration.cli.diagnosis.doctor import diagnose
    from imgpipe_orchestration.devstack import stackfile

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
