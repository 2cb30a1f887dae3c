"""`imgpipe evaluate describe`: models and prompts over a set of pictures of which is known what must hold."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import click

from imgpipe_orchestration.cli.options import data_option, settings_of


@click.group()
def command() -> None:
    """What models and prompts get right (docs/ai.md)."""


@command.command()
@data_option
@click.option("--set", "folder", type=click.Path(path_type=Path), help="Folder with expected.jsonl. Default: our own.")
@click.option("--models", help="PROVIDER:MODEL, several with commas. Default: those of the task.")
@click.option("--prompt", "file", type=click.Path(path_type=Path), help="In place of the prompt in force.")
@click.option("--html", type=click.Path(path_type=Path), default="evaluation.html", show_default=True)
def describe(data_dir: Path, folder: Path | None, models: str | None, file: Path | None, html: Path) -> None:
    """Ask models to describe a set of pictures. An answer is paid for once a model and prompt."""
    from imgpipe_orchestration.errors import BadInput
    from imgpipe_orchestration.media import evaluation
    from imgpipe_orchestration.partners.models import Choice
    from imgpipe_orchestration.services import Services

    with closing(Services(settings_of(data_dir))) as services:
        choices = services.models.choices("describe")
        if models:
            choices = [Choice.of(one.strip()) for one in models.split(",")]
            for chosen in choices:
                known = chosen.provider in services.models.providers
                if not known or not services.models.speaks_openai(chosen.provider):
                    raise BadInput(f"{str(chosen)!r} names no provider that describes images")
        library = services.prompts
        prompt = library.in_place_of("describe", file) if file else library["describe"]
        found = evaluation.evaluate(services, folder or evaluation.OWN_SET, choices, prompt)
    for one in found:
        if all(answer.error for answer in one.answers):
            click.echo(f"{one.model}: no answer. {one.answers[0].error}")
            continue
        cost, seconds = one.usd_per_thousand, (one.seconds(0.5), one.seconds(0.95))
        p50, p95 = ("from the ledger" if each is None else f"{each:.1f} s" for each in seconds)
        click.echo(
            f"{one.model}: schema kept {one.schema_kept:.0%}, fields right {one.fields_right:.0%}, "
            f"{'unknown' if cost is None else f'{cost:.2f}'} USD per 1,000, p50 {p50}, p95 {p95}"
            + (" (a stand-in answered)" if one.standin else "")
        )
    html.write_text(evaluation.page(found))
    click.echo(f"The answers side by side: {html}")


@command.command("export-corrections")
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
@data_option
def export_corrections(folder: Path, data_dir: Path) -> None:
    """Write every image that people corrected into FOLDER, and `expected.jsonl` with what they want it to say."""
    from imgpipe_orchestration.media.corrections import export
    from imgpipe_orchestration.services import Services

    with closing(Services(settings_of(data_dir))) as services:
        click.echo(f"{export(services, folder)} corrected images are in {folder}.")
