"""What is judged of the avatars: the brief before the first picture is paid for, and each bought picture (the selfie,
and the grid of four) before it is published."""

from __future__ import annotations

from sqlalchemy import Connection, text
from sqlalchemy.exc import NoResultFound

from imgpipe_orchestration.avatars import results
from imgpipe_orchestration.avatars.drawing import bought
from imgpipe_orchestration.avatars.lifecycle import PERSONAS, TASKS, name_of
from imgpipe_orchestration.avatars.results import Persona
from imgpipe_orchestration.errors import NotFound
from imgpipe_orchestration.moderation.subjects import Subject
from imgpipe_orchestration.services import Services
from imgpipe_orchestration.storage.rows import transaction


def _brief(services: Services, task: int) -> str:
    with transaction(services.engine) as connection:
        found = connection.scalar(text("select brief from generation_tasks where id = :id"), {"id": task})
    if found is None:
        raise NotFound(f"There is no avatar task {task}.")
    return str(found)


def picture_number(persona: Persona, name: str) -> int:
    """The number of a bought picture (`base_object` or `grid_object`): another one is bought for each try and edition,
    and judged anew."""
    tries = persona.base_tries if name == "base_object" else persona.grid_tries
    return persona.id << 10 | (persona.edition & 127) << 3 | (tries & 3) << 1 | (name == "grid_object")


def _picture(services: Services, number: int) -> bytes:
    try:
        with transaction(services.engine) as connection:
            persona = results.get(connection, number >> 10)
    except NoResultFound:
        raise NotFound(f"There is no such picture of a person: {number}.") from None
    key = persona.grid_object if number & 1 else persona.base_object
    if not key:
        raise NotFound(f"Person {persona.id} has no such picture any more.")
    return bought(services, key)


def _nobody(_: Connection, __: int) -> tuple[int | None, str]:
    return None, ""


BRIEFS = Subject("briefs", TASKS, "", _brief, _nobody, named=lambda _, task: f"task_{task}")
PORTRAITS = Subject("avatars", PERSONAS, "", _picture, _nobody, named=lambda rows, number: name_of(rows, number >> 10))
