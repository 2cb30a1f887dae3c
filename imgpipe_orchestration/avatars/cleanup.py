"""Removes the images of cancelled and failed tasks after KEPT_DAYS; `plan` is the dry run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from imgpipe_orchestration.avatars import records, store
from imgpipe_orchestration.avatars.model import task_prefix
from imgpipe_orchestration.avatars.records import Task
from imgpipe_orchestration.errors import BackendUnavailable
from imgpipe_orchestration.services import Services
from imgpipe_orchestration.storage.objects import StoredObject
from imgpipe_orchestration.storage.rows import transaction
from imgpipe_orchestration.telemetry.logs import logger

log = logger(__name__)

KEPT_DAYS = 7


@dataclass(frozen=True, slots=True)
class Removable:
    """What a clean-up removes of one task."""

    task_id: str
    status: str
    finished_at: datetime | None
    objects: int
    bytes: int


def plan(services: Services) -> list[Removable]:
    """What `remove` would remove now."""
    return [_described(task, _objects(services, task)) for task in _due(services)]


def remove(services: Services) -> list[Removable]:
    """Remove the images of due tasks; returns what was removed.

    Objects are deleted before the rows are changed, so an interrupted clean-up is simply repeated. Meanwhile the task
    is locked: who tries it again waits, or would lose the pictures that are then bought.

    Raises:
        BackendUnavailable: the object store removes nothing.
    """
    removed: list[Removable] = []
    for task in _due(services):
        try:
            objects = _objects(services, task)  # before the lock, which is held for no longer than it takes to delete
            with transaction(services.engine) as connection:
                if not store.lock_ended(connection, task):
                    continue
                services.avatars_bucket.delete_all(found.key for found in objects)
                store.images_removed(connection, task.id)
        except BackendUnavailable as error:
            log.warning(f"[Task {task.task_id}] images not removed yet", extra={"error": error.public})
            if not removed:
                raise
            break
        log.info(f"[Task {task.task_id}] removed {len(objects)} objects of a {task.status} task")
        removed.append(_described(task, objects))
    return removed


def _due(services: Services) -> list[Task]:
    with transaction(services.engine) as connection:
        return records.removable(connection, KEPT_DAYS)


def _objects(services: Services, task: Task) -> list[StoredObject]:
    return list(services.avatars_bucket.list(task_prefix(task.id)))


def _described(task: Task, objects: Sequence[StoredObject]) -> Removable:
    size = sum(found.size for found in objects)
    return Removable(task.task_id, task.status.value, task.finished_at, len(objects), size)
