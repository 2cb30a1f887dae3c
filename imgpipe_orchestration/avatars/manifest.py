"""A completed task's manifest, stored beside its pictures: people, files, models, prompts."""

from __future__ import annotations

import json
from typing import Any

from imgpipe_orchestration.avatars import records, results, store
from imgpipe_orchestration.avatars.model import PersonaStatus, public_url, task_prefix
from imgpipe_orchestration.avatars.records import Task
from imgpipe_orchestration.avatars.results import Persona
from imgpipe_orchestration.errors import BackendUnavailable
from imgpipe_orchestration.imaging.portraits.finishing import TRAINED
from imgpipe_orchestration.services import Services
from imgpipe_orchestration.storage.rows import transaction
from imgpipe_orchestration.telemetry.logs import logger

log = logger(__name__)


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
        people = results.of_task(connection, task.id)
    key = f"{task_prefix(task.id)}manifest.json"
    body = json.dumps(manifest(task, people), ensure_ascii=False, indent=1).encode()
    services.avatars_bucket.put(key, body, content_type="application/json", cache_control="no-cache")
    settings = services.settings
    with transaction(services.engine) as connection:
        store.manifest_written(
            connection, task.id, public_url(settings.s3_public_endpoint, settings.s3_bucket_name, key)
        )


def manifest(task: Task, people: list[Persona]) -> dict[str, Any]:
    """The manifest as JSON."""
    return {
        "task_id": task.task_id,
        "brief": task.brief,
        "language": task.language,
        "style": task.style,
        "seed": task.seed,
        "finished_at": task.finished_at.isoformat() if task.finished_at else None,
        "digital_source_type": TRAINED,
        "personas": [
            {
                "result_id": person.id,
                "name": person.name,
                "status": person.status.value,
                "error": person.error,
                "model": person.model,
                "standin": person.standin,
                "image_prompt": person.image_prompt,
                "images": person.images if person.status is PersonaStatus.COMPLETED else {},
                "quality": person.quality,
            }
            for person in people
        ],
    }
