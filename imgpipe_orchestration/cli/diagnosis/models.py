"""`imgpipe models check`: asks every model that a task uses the smallest question there is."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

import requests
from pydantic import BaseModel

from imgpipe_orchestration.billing.prices import cost_of
from imgpipe_orchestration.cli.diagnosis.check import TIMEOUT_SECONDS
from imgpipe_orchestration.errors import ImgpipeError, PartnerRefused, RateLimited, SpendingPaused, UnreadableAnswer
from imgpipe_orchestration.partners.models import Choice, TaskName
from imgpipe_orchestration.partners.usage import Usage
from imgpipe_orchestration.services import Services

YES, NO, UNTRIED = "yes", "no", "-"
_OF_MODEL = {403, 404}
"""Statuses with which a provider that is reached refuses a model."""


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
        for choice in services.models.choices(task):
            uses.setdefault(choice, []).append(task)
    return [_ask(services, choice, tasks) for choice, tasks in uses.items()]


def _ask(services: Services, choice: Choice, tasks: list[TaskName]) -> Asked:
    found = Asked(str(choice), ", ".join(tasks))
    drawing = set(tasks) <= {"draw", "edit"}
    question: Callable[[Services, Choice, Asked], None] = _listed if drawing else _seen
    if tasks == ["embed"]:
        question = _embedded
    elif tasks == ["moderate"]:
        question = _judged
    by_dialect = {"google-vision": _google, "flowise": _flowise}
    try:
        by_dialect.get(services.models.providers[choice.provider].dialect, question)(services, choice, found)
    except UnreadableAnswer as error:
        found.reached, found.known, found.schema, found.problem = YES, YES, NO, error.public
    except PartnerRefused as error:
        found.problem = error.public
        found.reached = NO if error.partner_status in {401, 402} else YES
        found.known = NO if error.partner_status in _OF_MODEL else UNTRIED
    except (SpendingPaused, RateLimited) as error:
        found.reached, found.problem = YES, error.public
    except (ImgpipeError, requests.RequestException) as error:
        found.reached = NO
        found.problem = error.public if isinstance(error, ImgpipeError) else type(error).__name__
    return found


def _seen(services: Services, choice: Choice, found: Asked) -> None:
    client = services.openai(choice.provider)
    answer = client.answer("Which colour is this picture?", Colour, model=choice.model, image=_red())
    found.reached = found.known = found.schema = YES
    found.vision = YES if answer.answer.colour == "red" else NO
    found.problem = "" if found.vision == YES else f"it takes a red picture for {answer.answer.colour}"
    _price(services, choice.model, answer.usage, found)


def _embedded(services: Services, choice: Choice, found: Asked) -> None:
    wanted = services.models.task("embed").dimensions
    answer = services.openai(choice.provider).embed("red", model=choice.model, dimensions=wanted)
    found.reached = found.known = YES
    found.schema = YES if len(answer.vector) == wanted else NO
    found.problem = "" if found.schema == YES else f"{len(answer.vector)} dimensions instead of {wanted}"
    _price(services, choice.model, answer.usage, found)


def _judged(services: Services, choice: Choice, found: Asked) -> None:
    answer = services.moderator(choice.provider).judge(_red(), model=choice.model)
    found.reached = found.known = found.vision = found.schema = YES
    _price(services, choice.model, answer.usage, found)


def _listed(services: Services, choice: Choice, found: Asked) -> None:
    there = services.openai(choice.provider).models()
    found.reached, found.known = YES, YES if choice.model in there else NO
    _price(services, choice.model, Usage(input_tokens=1), found)


def _google(services: Services, choice: Choice, found: Asked) -> None:
    answer = services.google_vision(choice.provider).annotate(_red(), size=(64, 64), features=["TEXT_DETECTION"])
    found.reached = found.known = found.vision = YES
    _price(services, answer.usage.model, answer.usage, found)


def _flowise(services: Services, choice: Choice, found: Asked) -> None:
    with requests.get(services.models.providers[choice.provider].base_url, timeout=TIMEOUT_SECONDS, stream=True) as it:
        found.reached = YES if it.status_code < 500 else NO


def _price(services: Services, model: str, usage: Usage, found: Asked) -> None:
    found.price = NO if cost_of(usage.model or model, usage, services.ledger.prices) is None else YES


def _red() -> bytes:
    from PIL import Image

    out = io.BytesIO()
    Image.new("RGB", (64, 64), (220, 20, 20)).save(out, "JPEG")
    return out.getvalue()
