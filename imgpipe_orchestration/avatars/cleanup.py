"""Removes the images of cancelled and failed tasks after AVATAR_CLEANUP_DAYS; `plan` is the dry run."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from imgpipe_orchestration.avatars import records, store
from imgpipe_orchestration.avatars.model import task_prefix
from imgpipe_orchestration.avatars.records import Task
from imgpipe_orchestration.errors import BackendUnavailable
from imgpipe_orchestration.logs import logger
from imgpipe_orchestration.services import Services
from imgpipe_orchestration.storage.rows import transaction

log = logger(__name__)


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
    return [_described(services, task) for task in _due(services)]


def remove(services: Services) -> list[Removable]:
    """Remove the images of due tasks; returns what was removed.

    Objects are deleted before the rows are changed, so an interrupted clean-up is simply repeated. Meanwhile the task
    is locked: who tries it again waits, or would lose the pictures that are then bought.

    Raises:
        BackendUnavailable: the object store removes nothing.
    """
    removed: list[Removable] = []
    bucket = services.avatars_bucket
    for task in _due(services):
        described = _described(services, task)
        with transaction(services.engine) as connection:
            if not store.lock_ended(connection, task.id):
                continue
            try:
                bucket.delete_all(found.key for found in bucket.list(task_prefix(task.id)))
            except BackendUnavailable as error:
                log.warning(f"[Task {task.task_id}] images not removed yet", extra={"error": error.public})
                if not removed:
                    raise
                break
            store.images_removed(connection, task.id)
        log.info(f"[Task {task.task_id}] removed {described.objects} objects of a {task.status} task")
        removed.append(described)
    return removed


def _due(services: Services) -> list[Task]:
    with transaction(services.engine) as connection:
        return records.removable(connection, services.settings.avatar_cleanup_days)


def _described(services: Services, task: Task) -> Removable:
    sizes = [found.size for found in services.avatars_bucket.list(task_prefix(task.id))]
    return Removable(task.task_id, task.status.value, task.finished_at, len(sizes), sum(sizes))
