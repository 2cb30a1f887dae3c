"""The listings' states, limits and file names."""

import re
from enum import StrEnum
from uuid import UUID

from slugify import slugify

JOB_ID = "process-image-queue"
"""The job definition that controls the queue; the Dagster job and sensor have the same name with underscores."""

MOST_TITLE = 10_000
"""Longest title, characters."""

MOST_IMAGES = 100
"""Most files of one upload."""

SLUG_LENGTH = 60
"""Longest slug, characters; short enough for a readable URL and for every file system."""

FILE_NAME = re.compile(r"[a-z0-9-]{1,60}-[0-9a-f]{8}\.webp")
"""The form of our file names. Others are answered without a query."""

DEFAULT_BATCH_SIZE = 10
MAX_BATCH_SIZE = 500


class Status(StrEnum):
    """States of `image_queue`, as the documents name them."""

    PENDING = "pending"  # accepted, not worked on yet
    PROCESSED = "processed"  # its WebP is at its URL
    RETRY = "retry"  # failed, will be tried again
    FAILED = "failed"  # given up: retries spent, or hopeless


def file_name(title: str, public_id: UUID) -> str:
    """`<slug>-<first 8 of the id>.webp`. The slug is the title's words in lower-case ASCII, transliterated; `listing`
    when the title has none (empty, only symbols)."""
    slug = slugify(title, max_length=SLUG_LENGTH, word_boundary=True, save_order=True) or "listing"
    return f"{slug}-{public_id.hex[:8]}.webp"
