"""`imgpipe models check`: asks every model that a task uses the smallest question there is."""

from __future__ import annotations

import io
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
    except (ImgpipeError, requests.RequestException) as error:
        found.reached = NO
        found.problem = error.public if isinstance(error, ImgpipeError) else type(error).__name__
    return found


def _question(services: Services, choice: Choice, tasks: list[TaskName], found: Asked) -> tuple[str, Usage | None]:
    """Ask, and note what the answer says; returns the model that answered and what it used."""
    model, provider = choice.model, services.models.providers[choice.provider]
    if provider.dialect == "flowise":
        requests.get(provider.base_url, timeout=TIMEOUT_SECONDS).raise_for_status()
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
        found.schema = YES if len(vector.vector) == wanted else NO
        found.problem = "" if found.schema == YES else f"{len(vector.vector)} dimensions instead of {wanted}"
        return model, vector.usage
    if tasks == ["moderate"]:
        found.vision = found.schema = YES
        return model, services.moderator(choice.provider).judge(_red(), model=model).usage
    answer = client.answer("Which colour is this picture?", Colour, model=model, image=_red())
    found.schema, found.vision = YES, YES if answer.answer.colour == "red" else NO
    found.problem = "" if found.vision == YES else f"it takes a red picture for {answer.answer.colour}"
    return model, answer.usage


def _red() -> bytes:
    from PIL import Image

    out = io.BytesIO()
    Image.new("RGB", (64, 64), (220, 20, 20)).save(out, "JPEG")
    return out.getvalue()
