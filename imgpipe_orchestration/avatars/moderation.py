"""What is judged of the avatars: the brief before the first picture is paid for, and each of a person's five pictures
before it is published."""

from __future__ import annotations

from sqlalchemy import text
from sqlalchemy.exc import NoResultFound

from imgpipe_orchestration.avatars import results
from imgpipe_orchestration.avatars.drawing import bought
from imgpipe_orchestration.avatars.lifecycle import PARTS, PERSONAS, TASKS, name_of
from imgpipe_orchestration.avatars.results import Persona
from imgpipe_orchestration.errors import NotFound
from imgpipe_orchestration.moderation.model import Subject
from imgpipe_orchestration.services import Services
from imgpipe_orchestration.storage.rows import transaction


def _brief(services: Services, task: int) -> str:
    with transaction(services.engine) as connection:
        found = connection.scalar(text("select brief from generation_tasks where id = :id"), {"id": task})
    if found is None:
        raise NotFound(f"There is no avatar task {task}.")
    return str(found)


def picture_number(persona: Persona, cell: int | None = None) -> int:
    """The number of the selfie, or of a picture that is cut from the grid: others are bought for each try and edition,
    and judged anew."""
    tries = persona.base_tries if cell is None else persona.grid_tries
    return persona.id << PARTS | (cell or 0) << 8 | (persona.edition & 31) << 3 | (tries & 3) << 1 | (cell is not None)


def _picture(services: Services, number: int) -> bytes:
    try:
        with transaction(services.engine) as connection:
            persona = results.get(connection, number >> PARTS)
    except NoResultFound:
        raise NotFound(f"There is no such picture of a person: {number}.") from None
    key = persona.grid_object if number & 1 else persona.base_object
    if not key or (number & 1 and not persona.split):
        raise NotFound(f"Person {persona.id} has no such picture any more.")
    data = bought(services, key)
    if not number & 1:
        return data
    from imgpipe_orchestration.imaging.portraits.finishing import Wanted, these

    left, top, right, bottom = (persona.split or [])[number >> 8 & 3]
    return services.workshop.call(these, data, [(left, top, right, bottom)], Wanted(0, 64, ""))[0].png


BRIEFS = Subject("briefs", TASKS, "", _brief, named=lambda _, task: f"task_{task}")
PORTRAITS = Subject("avatars", PERSONAS, "", _picture, named=lambda rows, number: name_of(rows, number >> PARTS))
