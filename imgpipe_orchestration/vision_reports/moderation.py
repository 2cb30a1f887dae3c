"""What is judged of the vision reports: each finding, before a customer reads it in a report."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, text

from imgpipe_orchestration.errors import NotFound
from imgpipe_orchestration.moderation.model import Subject
from imgpipe_orchestration.services import Services
from imgpipe_orchestration.storage.rows import transaction
from imgpipe_orchestration.vision_reports.lifecycle import BATCHES, PARTS


def finding_number(batch: int, position: int, index: int) -> int:
    """The number of a finding on an image of a batch; there are at most 30 on one."""
    return batch << PARTS | position << 5 | index


def words_of(finding: Mapping[str, Any]) -> str:
    """What a report quotes of a finding."""
    return f"{finding['title']}\n{finding['explanation']}"


def _finding(services: Services, number: int) -> str:
    query = text("select analysis from vision_batch_images where batch_id = :batch and position = :position")
    values = {"batch": number >> PARTS, "position": number >> 5 & 0xFFFF}
    with transaction(services.engine) as connection:
        analysis = connection.scalar(query, values)
    findings = (analysis or {}).get("findings", [])
    if number & 31 >= len(findings):
        raise NotFound(f"There is no finding {number}.")
    return words_of(findings[number & 31])


def _named(_: Connection, number: int) -> str:
    return f"vision_batches/{number >> PARTS}/{number >> 5 & 0xFFFF}"


FINDINGS = Subject("findings", BATCHES, "", _finding, named=_named)
