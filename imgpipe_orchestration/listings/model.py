"""The listings' states, file names, keys and URLs. Pure functions only."""

from __future__ import annotations

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

_FILE_NAME = re.compile(r"[a-z0-9-]{1,60}-[0-9a-f]{8}\.webp")

DEFAULT_BATCH_SIZE = 10
MAX_BATCH_SIZE = 500


class Status(StrEnum):
    """States of `image_queue`, as the documents name them."""

    PENDING = "pending"  # accepted, not worked on yet
    PROCESSED = "processed"  # its WebP is at its URL
    RETRY = "retry"  # failed, will be tried again
    FAILED = "failed"  # given up: retries spent, or hopeless


def slug(title: str) -> str:
    """The readable part of a file name: the title's words in lower-case ASCII, transliterated; `listing` when the title
    has none (empty, only symbols)."""
    return slugify(title, max_length=SLUG_LENGTH, word_boundary=True, save_order=True) or "listing"


def file_name(title: str, public_id: UUID) -> str:
    """`<slug>-<first 8 of the id>.webp`."""
    return f"{slug(title)}-{public_id.hex[:8]}.webp"


def handed_out(name: str) -> bool:
    """Whether a name has the form of our file names. Others are answered without a query."""
    return _FILE_NAME.fullmatch(name) is not None


def original_key(public_id: UUID) -> str:
    """The original's key, in a folder of its own: the public files lie at the root of the bucket."""
    return f"originals/{public_id}"


def public_url(base: str, name: str) -> str:
    """The URL that clients are given; see LISTINGS_PUBLIC_URL."""
    return f"{base}/{name}"


def queued_message(count: int) -> str:
    """The sentence of the upload's answer."""
    return f"{count} image{'' if count == 1 else 's'} queued for processing"
