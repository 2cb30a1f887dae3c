"""The pipelines as people know them: what each is called, where its page is, what it counts."""

from __future__ import annotations

from dataclasses import dataclass

from imgpipe_orchestration.auto_marker.model import JOB as MARKER


@dataclass(frozen=True, slots=True)
class About:
    """`name` is also the group of the pipeline's assets in Dagster and the tag of its runs."""

    name: str
    title: str
    page: str
    unit: str = "images"


ABOUT = (
    About("media", "Media", "/media"),
    About("listings", "Listings", "/listings"),
    About(MARKER, "Image processing", "/processing"),
    About("vision_reports", "Vision reports", "/vision-reports", "analyses"),
    About("avatars", "Avatars", "/avatars", "people"),
)
