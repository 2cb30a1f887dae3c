"""A completed task's manifest (people, files, models, prompts), which is stored beside its pictures; and its exports as
CSV, JSON Lines, or a ZIP that streams the pictures."""

import csv
import io
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
    services.avatars_bucket.put(key, manifest(task, people), content_type="application/json", cache_control="no-cache")
    with transaction(services.engine) as connection:
        connection.execute(_WRITTEN, {"id": task.id, "url": public_url(services.settings, key)})


_WRITTEN = text("update generation_tasks set manifest_url = :url where id = :id and status = 'completed'")


def manifest(task: Task, people: list[Persona]) -> bytes:
    """The manifest, JSON."""
    told = {
        **task.model_dump(include={"task_id", "brief", "language", "style", "seed"}),
        "finished_at": task.finished_at.isoformat() if task.finished_at else None,
        "digital_source_type": TRAINED,
        "personas": [
            {
                "result_id": person.id,
                "name": person.name,
                **person.model_dump(include={"error", "model", "standin", "image_prompt", "quality"}),
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
    line = io.StringIO()
    writer = csv.writer(line)

    def row(values: list[Any]) -> bytes:
        writer.writerow([_harmless(value) for value in values])
        data = line.getvalue().encode()
        line.seek(0)
        line.truncate()
        return data

    # With a byte order mark; without it Excel reads the file as Latin-1.
    yield b"\xef\xbb\xbf" + row(list(COLUMNS))
    for person in people:
        yield row(list(record(person).values()))


def _harmless(value: Any) -> Any:
    """A text that a spreadsheet would run as a formula gets a quote in front (OWASP, CSV injection)."""
    return f"'{value}" if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r") else value


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
