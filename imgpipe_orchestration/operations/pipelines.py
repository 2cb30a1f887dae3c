"""The pipelines by name, the queues of each, as in `imgpipe requeue media`, and the end of their pauses."""

from collections.abc import Sequence

from imgpipe_orchestration.auto_marker.store import QUEUE as MARKER
from imgpipe_orchestration.avatars.store import DATA, IMAGES
from imgpipe_orchestration.errors import NotFound
from imgpipe_orchestration.lifecycle.cdn import CDN_PURGES
from imgpipe_orchestration.listings.store import QUEUE as LISTINGS
from imgpipe_orchestration.media.store import AGAIN, CANARY, HEALING, MEDIA, URLS
from imgpipe_orchestration.moderation.verdicts import JUDGE
from imgpipe_orchestration.operations.erasure import ERASURES
from imgpipe_orchestration.storage.claims import Queue
from imgpipe_orchestration.storage.deletions import PURGES
from imgpipe_orchestration.vision_reports import analyses, batches, executions
from imgpipe_orchestration.wiring.services import Services

PIPELINES: dict[str, list[Queue]] = {
    "avatars": [IMAGES, DATA],
    "media": [MEDIA, URLS, HEALING, *AGAIN, CANARY],
    "listings": [LISTINGS],
    "auto_marker": [MARKER],
    "vision_reports": [analyses.QUEUE, executions.QUEUE, batches.QUEUE],
    "lifecycle": [PURGES, ERASURES, CDN_PURGES],
    "moderation": [JUDGE],
}
"""Name of the pipeline: its queues, the one with its items first."""


def end_pauses(services: Services, queues: Sequence[Queue], ids: Sequence[int] | None = None) -> dict[str, list[int]]:
    """Ask all paused providers again, and make due what waits in some queues, or only `ids` of each, because a person
    knows that what caused the pauses is mended.

    Returns:
        the ids of the items that waited, by queue.
    """
    services.ledger.resume()  # first, for what is due while its provider is paused would pause again
    return {queue.name: services.claims.hasten(queue, ids) for queue in queues}


def every_queue() -> list[Queue]:
    """The queues of all pipelines."""
    return [queue for of_pipeline in PIPELINES.values() for queue in of_pipeline]


def queues(name: str) -> list[Queue]:
    """The queues of a pipeline, or the one queue with that name; dashes may replace underscores.

    Raises:
        NotFound: there is neither; the message lists the known names.
    """
    name = name.replace("-", "_")
    if name in PIPELINES:
        return PIPELINES[name]
    every = every_queue()
    found = [queue for queue in every if queue.name == name]
    if not found:
        known = sorted({*PIPELINES, *(queue.name for queue in every)})
        raise NotFound(f"There is no pipeline or queue {name!r}; there are {', '.join(known)}.")
    return found
