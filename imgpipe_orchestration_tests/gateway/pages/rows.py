"""Rows as the pipelines leave them, for pages to show."""

from imgpipe_orchestration.errors import ImgpipeError, Permanent
from imgpipe_orchestration.media.store import MEDIA
from imgpipe_orchestration.storage.claims import Queue
from imgpipe_orchestration.wiring.services import Services
from imgpipe_orchestration_tests.storage.claims import shorthand


def fail(
    services: Services, queue: Queue, ids: list[int], reason: str | ImgpipeError = "The file is no image."
) -> None:
    """Items that were tried once and given up."""
    error = reason if isinstance(reason, ImgpipeError) else Permanent(reason)
    shorthand.put(services.claims, *ids, tenant="7", queue=queue)
    for claim in services.claims.claim(queue, "0f5a7c52-run", len(ids)):
        shorthand.fail(services.claims, claim, error, queue)


def finish(services: Services, queue: Queue, ids: list[int]) -> None:
    """Items that are done."""
    shorthand.put(services.claims, *ids, tenant="7", queue=queue)
    for claim in services.claims.claim(queue, "0f5a7c52-run", len(ids)):
        shorthand.finish(services.claims, claim, queue)


def failed_media(services: Services, count: int = 3) -> None:
    fail(services, MEDIA, list(range(1, count + 1)))
