"""Asks models about a set of pictures of which we know what must hold, and counts what they got right.

A set is a folder with pictures and `expected.jsonl`, one line a picture:

    {"image": "cat.webp", "kind": "product", "expect": {"alt_text": {"contains": ["cat", "kitten"]},
        "quality_score": {"within": [40, 100]}, "mood_keywords": {"in": ["calm", "curious"]}}}

`contains`: one of the texts is in the field, in any case. `within`: the number is between the two. `in`: the value, or
one of a list's, is among these. The answers come through the ledger, so a set costs money once a model and prompt.
"""

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from imgpipe_orchestration.billing.calls import Buyer
from imgpipe_orchestration.errors import BadInput, ImgpipeError
from imgpipe_orchestration.media.describing import Description, schema_of
from imgpipe_orchestration.media.model import BY_KIND
from imgpipe_orchestration.partners.models import Choice
from imgpipe_orchestration.prompts.library import Prompt
from imgpipe_orchestration.wiring.services import Services

OWN_SET = Path(__file__).parent / "evaluation_set"
"""Nine photographs that may be used for anything, and three logos drawn for this purpose."""
_THREADS = 4


class Expected(BaseModel):
    """What must hold of one field."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True)

    contains: list[str] | None = None
    within: tuple[float, float] | None = None
    among: list[str] | None = Field(None, alias="in")

    def holds(self, value: Any) -> bool:
        values = [str(one).casefold() for one in (value if isinstance(value, list) else [value])]
        return (
            (self.contains is None or any(word.casefold() in one for word in self.contains for one in values))
            and (self.within is None or (isinstance(value, int | float) and self.within[0] <= value <= self.within[1]))
            and (self.among is None or not {word.casefold() for word in self.among}.isdisjoint(values))
        )


class Picture(BaseModel):
    """One line of `expected.jsonl`."""

    model_config = ConfigDict(extra="forbid")

    image: str
    kind: str
    expect: dict[str, Expected]


@dataclass
class Answered:
    """One model's answer about one picture; `wrong` are fields that do not hold, all of them where it failed."""

    picture: Picture
    answer: dict[str, Any] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)
    error: str = ""
    seconds: float | None = None
    cost: Decimal | None = None
    standin: bool = False


@dataclass
class Evaluated:
    """One model over a set."""

    model: str
    answers: list[Answered]

    @property
    def schema_kept(self) -> float:
        """Share of the pictures with an answer that has the form asked for."""
        return sum(not one.error for one in self.answers) / len(self.answers)

    @property
    def fields_right(self) -> float:
        """Share of the expectations that hold."""
        expected = sum(len(one.picture.expect) for one in self.answers)
        return 1 - sum(len(one.wrong) for one in self.answers) / max(1, expected)

    @property
    def usd_per_thousand(self) -> Decimal | None:
        """None where an answer's price is unknown."""
        costs = [one.cost for one in self.answers if not one.error]
        known = [cost for cost in costs if cost is not None]
        return 1000 * sum(known, Decimal(0)) / len(known) if known and len(known) == len(costs) else None

    def seconds(self, share: float) -> float | None:
        """A percentile over the answers that were bought now; None where all were in the ledger."""
        measured = sorted(one.seconds for one in self.answers if one.seconds is not None)
        return measured[min(len(measured) - 1, int(share * len(measured)))] if measured else None

    @property
    def standin(self) -> bool:
        return any(one.standin for one in self.answers)


def evaluate(services: Services, folder: Path, choices: Sequence[Choice], prompt: Prompt) -> list[Evaluated]:
    """Ask each model about each picture of a set.

    Raises:
        BadInput: there is no set, or a line of it cannot be used; or there is no model.
    """
    pictures = _read(folder)
    if not choices:
        raise BadInput("No model describes images: MODELS_FILE turns the task off, or no key is set.")
    found = []
    with ThreadPoolExecutor(_THREADS, thread_name_prefix="evaluation") as pool:
        for choice in choices:
            ask = partial(_ask, services, folder, choice, prompt)
            found.append(Evaluated(str(choice), list(pool.map(ask, pictures))))
    return found


def _read(folder: Path) -> list[Picture]:
    try:
        lines = [line for line in (folder / "expected.jsonl").read_text(encoding="utf-8").splitlines() if line.strip()]
        pictures = [Picture.model_validate_json(line) for line in lines]
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"{folder} is not an evaluation set: {error}") from error
    except ValidationError as error:
        fault = error.errors(include_url=False, include_input=False)[0]
        raise BadInput(f"expected.jsonl: {'.'.join(map(str, fault['loc']))}: {fault['msg']}") from error
    for one in pictures:
        if one.kind not in BY_KIND:
            raise BadInput(f"expected.jsonl: {one.image} has an unknown kind {one.kind!r}: {', '.join(BY_KIND)}")
        if unknown := sorted(set(one.expect) - set(schema_of(one.kind).model_fields)):
            raise BadInput(f"expected.jsonl: a {one.kind} has no field {unknown[0]!r}")
        if not (folder / one.image).is_file():
            raise BadInput(f"expected.jsonl: there is no picture {one.image}")
    if not pictures:
        raise BadInput(f"{folder / 'expected.jsonl'} has no line")
    return pictures


def _ask(services: Services, folder: Path, choice: Choice, prompt: Prompt, picture: Picture) -> Answered:
    from imgpipe_orchestration.imaging.measuring import look

    try:
        seen = services.workshop.call(look, (folder / picture.image).read_bytes())
        began = time.monotonic()
        buyer = Buyer("evaluation", f"evaluation/{Path(picture.image).name}")
        bought = Description(services, choice, prompt, seen.preview, picture.kind, {}, buyer).bought()
    except ImgpipeError as error:
        return Answered(picture, wrong=list(picture.expect), error=error.public)
    answer = bought.value["answer"]
    wrong = [name for name, wanted in picture.expect.items() if not wanted.holds(answer.get(name))]
    seconds = time.monotonic() - began if bought.bought else None
    return Answered(picture, answer, wrong, "", seconds, bought.cost_usd, bought.usage.standin)


def page(results: Sequence[Evaluated]) -> str:
    """An HTML page of the figures, and the answers side by side."""
    import jinja2

    environment = jinja2.Environment(autoescape=True, loader=jinja2.FileSystemLoader(Path(__file__).parent))
    pictures = [one.picture for one in results[0].answers]
    return environment.get_template("evaluation.html").render(results=results, pictures=pictures)
