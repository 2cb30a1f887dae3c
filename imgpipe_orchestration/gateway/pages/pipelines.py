"""The pipelines on the pages: title, page and unit of each."""

from __future__ import annotations

from dataclasses import dataclass

from imgpipe_orchestration.auto_marker.model import JOB as MARKER
from imgpipe_orchestration.operations.pipelines import PIPELINES


@dataclass(frozen=True, slots=True)
class About:
    """`name` is also the group of the pipeline's assets in Dagster and what its runs are tagged with."""

    name: str
    title: str
    page: str
    unit: str = "images"


ABOUT = (
    About("media", "Media", "/media"),
    About("listings", "Listings", "/listings"),
    About(MARKER, "Auto-marker", "/processing"),
    About("vision_reports", "Vision reports", "/vision-reports", "analyses"),
    About("avatars", "Avatars", "/avatars", "people"),
)


def about(name: str) -> About:
    return next(one for one in ABOUT if one.name == name)


def about_queue(queue: str) -> About | None:
    """The pipeline that a queue belongs to; None when no pipeline of a page has the queue (any more)."""
    return next((one for one in ABOUT if queue in _queues(one.name)), None)


def _queues(name: str) -> set[str]:
    return {queue.name for queue in PIPELINES[name]()} if name in PIPELINES else set()
