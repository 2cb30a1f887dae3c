"""`imgpipe models`, `evaluate`, `embeddings` and `estimate`: what models can do and what they cost (docs/ai.md)."""

import io
import json
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal, get_args

import click
import requests
from pydantic import BaseModel

from imgpipe_orchestration.billing.prices import cost_of
from imgpipe_orchestration.cli.diagnosis import Bad, reach_flowise
from imgpipe_orchestration.cli.options import data_option, json_option, services_of
from imgpipe_orchestration.errors import (
    BadInput,
    ImgpipeError,
    PartnerRefused,
    RateLimited,
    SpendingPaused,
    UnreadableAnswer,
)
from imgpipe_orchestration.partners.models import Choice, TaskName
from imgpipe_orchestration.partners.usage import Usage
from imgpipe_orchestration.wiring.services import Services

YES, NO, UNTRIED = "yes", "no", "-"


class Colour(BaseModel):
    """The answer about a red picture."""

    colour: Literal["red", "green", "blue", "none"]


@dataclass
class Asked:
    """What one model answered. Each field is yes, no, or - where it was not tried."""

    model: str
    tasks: str
    reached: str = UNTRIED
    known: str = UNTRIED
    vision: str = UNTRIED
    schema: str = UNTRIED
    price: str = UNTRIED
    problem: str = ""


def ask_all(services: Services) -> list[Asked]:
    """Ask every model of every task. Not through the ledger, which would answer in the provider's place; it costs a
    fraction of a cent. Pictures, which cost more, are not drawn: the list of models is asked for instead."""
    uses: dict[Choice, list[TaskName]] = {}
    for task in get_args(TaskName):
        for choice in services.models.choices(task) + services.models.canaries(task):
            uses.setdefault(choice, []).append(task)
    return [_ask(services, choice, tasks) for choice, tasks in uses.items()]


def _ask(services: Services, choice: Choice, tasks: list[TaskName]) -> Asked:
    found = Asked(str(choice), ", ".join(tasks))
    try:
        model, usage = _question(services, choice, tasks, found)
        found.reached = YES
        if usage is not None:
            found.known = YES if found.known == UNTRIED else found.known
            found.price = NO if cost_of(usage.model or model, usage, services.ledger.prices) is None else YES
    except UnreadableAnswer as error:
        found.reached, found.known, found.schema, found.problem = YES, YES, NO, error.public
    except PartnerRefused as error:
        found.problem = error.public
        found.reached = NO if error.partner_status in {401, 402} else YES
        found.known = NO if error.partner_status in {403, 404} else UNTRIED
    except (SpendingPaused, RateLimited) as error:
        found.reached, found.problem = YES, error.public
    except ImgpipeError as error:
        found.reached, found.problem = NO, error.public
    except (Bad, requests.RequestException):
        found.reached = NO
        found.problem = f"{choice.provider} cannot be reached or is down: `imgpipe doctor` says why"
    return found


def _question(services: Services, choice: Choice, tasks: list[TaskName], found: Asked) -> tuple[str, Usage | None]:
    """Ask, and note what the answer says; returns the model that answered and what it used."""
    from imgpipe_orchestration.partners.openai import Query

    model, provider = choice.model, services.models.providers[choice.provider]
    if provider.dialect == "flowise":
        reach_flowise(provider)
        return model, None
    if provider.dialect == "google-vision":
        seen = services.google_vision(choice.provider).annotate(_red(), size=(64, 64), features=["TEXT_DETECTION"])
        found.vision = YES
        return seen.usage.model, seen.usage
    client = services.openai(choice.provider)
    if set(tasks) <= {"draw", "edit"}:
        found.known = YES if model in client.models() else NO
        return model, Usage(input_tokens=1)
    if tasks == ["embed"]:
        wanted = services.models.task("embed").dimensions
        vector = client.embed("red", model=model, dimensions=wanted)
        found.schema = YES if len(vector.value) == wanted else NO
        found.problem = "" if found.schema == YES else f"{len(vector.value)} dimensions instead of {wanted}"
        return model, vector.usage
    if tasks == ["moderate"]:
        found.vision = found.schema = YES
        return model, services.moderator(choice.provider).judge(_red(), model=model).usage
    shown = None if set(tasks) <= {"persona", "prompt"} else _red()  # these are asked in words only
    answer = client.answer(Query("Which colour is this picture?", Colour, shown), model=model)
    found.schema = YES
    if shown:
        found.vision = YES if answer.value.colour == "red" else NO
        found.problem = "" if found.vision == YES else f"it calls a red picture {answer.value.colour}"
    return model, answer.usage


def _red() -> bytes:
    from PIL import Image

    out = io.BytesIO()
    Image.new("RGB", (64, 64), (220, 20, 20)).save(out, "JPEG")
    return out.getvalue()


@click.group()
def models() -> None:
    """The models that answer the tasks (MODELS_FILE, docs/ai.md)."""


@models.command()
@data_option
@json_option
@click.pass_context
def check(ctx: click.Context, data_dir: Path, as_json: bool) -> None:
    """Ask each model the smallest question. Costs a fraction of a cent.

    Ends with code 1 when a model cannot be reached, is unknown, cannot see, breaks the schema or has another problem.
    """

    with services_of(data_dir) as services:
        found = ask_all(services)
    if as_json:
        click.echo(json.dumps([asdict(one) for one in found], indent=2))
    else:
        from rich.console import Console
        from rich.table import Column, Table

        names = ("model", "tasks", "reached", "known", "vision", "schema", "price", "problem")
        table = Table(*(Column(name, overflow="fold") for name in names))
        for one in found:
            table.add_row(*asdict(one).values())
        Console().print(table)
    ctx.exit(1 if any(one.problem or NO in (one.reached, one.known, one.vision, one.schema) for one in found) else 0)


@click.group()
def evaluate() -> None:
    """What models and prompts get right (docs/ai.md)."""


@evaluate.command()
@data_option
@click.option("--set", "folder", type=click.Path(path_type=Path), help="Folder with expected.jsonl. Default: our own.")
@click.option("--models", help="PROVIDER:MODEL, several with commas. Default: those of the task.")
@click.option("--prompt", "file", type=click.Path(path_type=Path), help="In place of the prompt in force.")
@click.option("--html", type=click.Path(path_type=Path), default="evaluation.html", show_default=True)
def describe(data_dir: Path, folder: Path | None, models: str | None, file: Path | None, html: Path) -> None:
    """Ask models to describe a set of pictures. Each is paid for once per model and prompt."""
    from imgpipe_orchestration.media import evaluation

    with services_of(data_dir) as services:
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
    html.write_text(evaluation.page(found), encoding="utf-8")
    click.echo(f"The answers side by side: {html}")


@evaluate.command("export-corrections")
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
@data_option
def export_corrections(folder: Path, data_dir: Path) -> None:
    """Write every image that people corrected into FOLDER, and `expected.jsonl` with what must hold of the answers."""
    from imgpipe_orchestration.media.analyses import export

    with services_of(data_dir) as services:
        made, left_out = export(services, folder)
    click.echo(f"{made} corrected images are in {folder}.")
    for why, count in left_out.items():
        click.echo(f"Left out because {why}: {count}")


@click.group()
def embeddings() -> None:
    """The vectors that the search compares (docs/ai.md)."""


@embeddings.command()
@data_option
def rebuild(data_dir: Path) -> None:
    """Recompute all vectors with the model and length that the task `embed` has now.

    The search goes on with the old ones until all are there. It can be stopped; run it again to continue.
    """
    from imgpipe_orchestration.media.embedding import rebuild as make

    def told(done: int, of: int) -> None:
        click.echo(f"{done} of {of} images")

    with services_of(data_dir) as services:
        made, refused = make(services, told=told)
    click.echo(f"Vectors made: {made}. The search uses {services.models.choices('embed')[0]} now.")
    if refused:
        named = [f"{media_id} ({why})" for media_id, why in refused.items()]
        click.echo(f"Images without a vector ({len(named)}): {', '.join(named[:5])}{', ...' * (len(named) > 5)}")


@click.group()
def estimate() -> None:
    """What a backfill would cost, before it is started."""


@estimate.command()
@click.option("--from", "first", type=click.DateTime(["%Y-%m-%d"]), required=True, help="First day of upload (UTC).")
@click.option("--to", "last", type=click.DateTime(["%Y-%m-%d"]), required=True, help="Last day of upload.")
@data_option
@json_option
def media(first: datetime, last: datetime, data_dir: Path, as_json: bool) -> None:
    """What analyses of these days are outdated, and what asking again would cost at most.

    A call costs what this pipeline's last thousand calls of its kind cost on average, or else is of unknown cost.
    """
    from imgpipe_orchestration.media import remake

    if last < first:
        raise click.BadParameter("is before --from", param_hint="--to")
    with services_of(data_dir) as services:
        found = remake.estimate(services, first.date(), last.date())
    if as_json:
        click.echo(json.dumps(found, indent=2))
        return
    click.echo(f"{found['images']} images have an outdated analysis.")
    for operation, calls in found["calls"].items():
        click.echo(f"  at most {calls} x {operation}")
    click.echo(f"In all at most {found['cost_usd']:.4f} USD.")
    if unknown := found["calls_of_unknown_cost"]:
        click.echo(f"This leaves out {unknown} calls of unknown cost: none was bought yet.")
    click.echo("Copies of an image, and answers that were bought before, cost nothing more.")
