"""A completed task's manifest (people, files, models), which is stored beside its pictures; and the task's exports as
CSV, JSON Lines, or a ZIP that streams the pictures."""

import json
from collections.abc import Iterable, Iterator
from typing import Any

from sqlalchemy import text

from imgpipe_orchestration.avatars import records
from imgpipe_orchestration.avatars.model import PersonaStatus, public_url, task_prefix
from imgpipe_orchestration.avatars.records import Persona, Task
from imgpipe_orchestration.errors import BackendUnavailable
from imgpipe_orchestration.imaging.portraits.finishing import TRAINED
from imgpipe_orchestration.lifecycle.zips import pictures
from imgpipe_orchestration.storage.rows import transaction
from imgpipe_orchestration.telemetry.logs import logger
from imgpipe_orchestration.web.texts import csv_of
from imgpipe_orchestration.wiring.services import Services

log = logger(__name__)

COLUMNS = (
    "result_id", "firstname", "lastname", "gender", "age", "nationality", "occupation", "bio", "appearance", "status",
    "error", "base_image_url", "image_1_url", "image_2_url", "image_3_url", "image_4_url",
)  # fmt: skip


def write_manifests(services: Services) -> int:
    """Write missing manifests; returns how many. If the bucket is away, the next run writes the rest."""
    written = 0
    with transaction(services.engine) as connection:
        tasks = records.unwritten(connection)
    for task in tasks:
        try:
            _write(services, task)
        except BackendUnavailable as error:
            log.warning(f"[Task {task.task_id}] manifest not written yet", extra={"error": error.public})
            break
        written += 1
    return written


def _write(services: Services, task: Task) -> None:
    with transaction(services.engine) as connection:
        people = records.people_of(connection, task.id)
    key = f"{task_prefix(task.id)}manifest.json"
    told = manifest(task, people, public=True)
    services.avatars_bucket.put(key, told, content_type="application/json", cache_control="no-cache")
    with transaction(services.engine) as connection:
        values = {"id": task.id, "url": public_url(services.settings, key), "people": len(people)}
        written = connection.scalar(_WRITTEN, values)
    if not written:
        services.avatars_bucket.discard([key])


# Unless one of the people was deleted meanwhile: then it is written again if anybody is left.
_WRITTEN = text(f"""
    update generation_tasks set manifest_url = case when status = 'completed' and :people = (
        select count(*) from generation_results r where task_id = :id and {records.IS_THERE}) then :url end
    where id = :id returning manifest_url
""")


_NOT_PUBLIC = {"brief", "style", "seed", "image_prompt", "quality", "error"}
"""What was asked for, and how it was judged, also by a person: not for strangers, who can read the stored manifest."""


def manifest(task: Task, people: list[Persona], *, public: bool = False) -> bytes:
    """The manifest, JSON; the public one is without _NOT_PUBLIC."""
    hidden = _NOT_PUBLIC if public else None
    told = {
        **task.model_dump(include={"task_id", "brief", "language", "style", "seed"}, exclude=hidden),
        "finished_at": task.finished_at.isoformat() if task.finished_at else None,
        "digital_source_type": TRAINED,
        "personas": [
            {
                "result_id": person.id,
                "name": person.name,
                **person.model_dump(include={"error", "model", "standin", "image_prompt", "quality"}, exclude=hidden),
                "status": person.status.value,
                "images": person.images if person.status is PersonaStatus.COMPLETED else {},
            }
            for person in people
        ],
    }
    return json.dumps(told, ensure_ascii=False, indent=1).encode()


def record(person: Persona) -> dict[str, Any]:
    """One line of an export."""
    values = {name: getattr(person, "id" if name == "result_id" else name) for name in COLUMNS}
    return values | {"status": person.status.value}


def as_jsonl(people: Iterable[Persona]) -> Iterator[bytes]:
    """The people of a task as JSON Lines, a line at a time."""
    for person in people:
        yield json.dumps(record(person), ensure_ascii=False).encode() + b"\n"


def as_csv(people: Iterable[Persona]) -> Iterator[bytes]:
    """The people of a task as CSV, a line at a time, the header first."""
    yield b"\xef\xbb\xbf"  # a byte order mark, without which Excel reads the file as Latin-1
    for line in csv_of(COLUMNS, (record(person).values() for person in people)):
        yield line.encode()


def as_zip(services: Services, task: Task, people: list[Persona]) -> Iterator[bytes]:
    """The manifest, and a folder with the five PNG of each completed person. One picture is in memory at a time.

    A picture that cannot be read becomes a line in `missing.txt` and does not break the download.
    """
    named = (
        (f"persona_{person.id}/{name}.png", image["key"], image["bytes"])
        for person in people
        if person.status is PersonaStatus.COMPLETED
        for name, image in sorted(person.images.items())
    )
    return pictures(services.avatars_bucket, named, {"manifest.json": manifest(task, people)})
