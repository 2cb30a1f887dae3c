"""The rows of our own analysis backend: uploaded images, batches, what was found on each image."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Engine, Row, text

from imgpipe_orchestration.errors import BadInput, NotFound
from imgpipe_orchestration.partners.analysis_backend import BatchOrder, BatchState
from imgpipe_orchestration.storage.claims import Claims, Item, Queue, State
from imgpipe_orchestration.storage.rows import transaction
from imgpipe_orchestration.web.texts import plain_text


def _follow(rows: Connection, ids: Sequence[int], state: State, error: str | None) -> None:
    """Copy the state of items in QUEUE to their batches."""
    status = {State.DONE: "completed", State.FAILED: "failed", State.WAITING: "queued"}[state]
    statement = text("""
        update vision_batches set status = :status, error = :error,
            finished_at = case when :status = 'queued' then null else now() end
        where id = any(:ids)
    """)
    rows.execute(statement, {"status": status, "error": error, "ids": list(ids)})


QUEUE = Queue("vision_batches", max_attempts=3, mirror=_follow)


@dataclass(frozen=True, slots=True)
class BatchImage:
    """An image of a batch with its state. `analysis` is as returned by `inspection.accepted`.

    `bytes` and `view_bytes` are the sizes of the uploaded image and of its view; None where they are not known.
    """

    position: int
    name: str
    object_key: str
    description: str
    status: str
    measured: dict[str, Any] | None
    analysis: dict[str, Any] | None
    error: str | None
    bytes: int | None = None
    view_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Batch:
    """A batch to work on or to report about."""

    id: int
    batch_id: UUID
    organization_id: str
    user_query: str
    model: str
    missing: list[dict[str, str]]
    notes: list[str]
    images: list[BatchImage]
    urgent: bool = True


def add_upload(engine: Engine, upload: Mapping[str, Any]) -> None:
    """Commit an uploaded image, all columns of it; its object is stored already."""
    with transaction(engine) as rows:
        rows.execute(
            text("""
                insert into vision_uploads
                    (image_id, organization_id, name, object_key, bytes, width, height, format)
                values (:image_id, :organization_id, :name, :object_key, :bytes, :width, :height, :format)
            """),
            upload,
        )


def start(engine: Engine, claims: Claims, order: BatchOrder, reference: str) -> tuple[UUID, BatchState]:
    """Queue a batch by one of our models. For a reference that is known already, its batch is returned.

    Raises:
        NotFound: an image is unknown, or belongs to another organization.
        BadInput: an image appears twice.
    """
    ids, organization = _image_ids(order), order.organization_id.strip()
    with transaction(engine) as rows:
        values = {
            # With the organization, so that one's reference never finds another's batch.
            "reference": json.dumps([organization, reference]) if reference else None,
            "organization": organization,
            "query": plain_text(order.user_query, 4000),
            "model": order.model,
            "missing": json.dumps(
                [{"name": plain_text(one.name, 200), "reason": plain_text(one.reason, 500)} for one in order.missing]
            ),
            "notes": json.dumps([plain_text(note, 500) for note in order.notes]),
            "urgent": order.urgent,
        }
        batch = rows.execute(_START, values).one_or_none()
        if batch is None:
            known = rows.execute(text("select * from vision_batches where reference = :reference"), values).one()
            return known.batch_id, BatchState(known.status)
        known_ids = set(
            rows.execute(
                text("select image_id from vision_uploads where image_id = any(:ids) and organization_id = :org"),
                {"ids": ids, "org": organization},
            ).scalars()
        )
        if unknown := [str(image_id) for image_id in ids if image_id not in known_ids]:
            raise NotFound(f"No image {unknown[0]} of this organization; upload it first")
        rows.execute(
            text("""
                insert into vision_batch_images (batch_id, position, image_id, description)
                values (:batch, :position, :image, :description)
            """),
            [
                {
                    "batch": batch.id,
                    "position": position,
                    "image": image_id,
                    "description": plain_text(image.description, 2000),
                }
                for position, (image_id, image) in enumerate(zip(ids, order.images, strict=True))
            ],
        )
        claims.enqueue(rows, QUEUE, [Item(batch.id, tenant=organization)])
        return batch.batch_id, BatchState.QUEUED


def found(engine: Engine, batch_id: UUID) -> Row[Any]:
    """The batch's own row, with the numbers of its images in all (`total`) and of those that are `done`.

    Raises:
        NotFound: there is none of this id.
    """
    with transaction(engine) as rows:
        row = rows.execute(
            text("""
                select b.*, count(i.*) as total, count(i.*) filter (where i.status <> 'waiting') as done
                from vision_batches b left join vision_batch_images i on i.batch_id = b.id
                where b.batch_id = :id group by b.id
            """),
            {"id": batch_id},
        ).one_or_none()
    if row is None:
        raise NotFound(f"No batch {batch_id}")
    return row


def load(rows: Connection, number: int) -> Batch:
    """A batch by its row's number, with its images in order."""
    row = rows.execute(
        text("""
            select id, batch_id, organization_id, user_query, model, unavailable as missing, notes, urgent
            from vision_batches where id = :id
        """),
        {"id": number},
    ).one()
    images = rows.execute(
        text("""
            select i.position, u.name, u.object_key, i.description, i.status, i.measured, i.analysis, i.error, u.bytes,
                i.view_bytes
            from vision_batch_images i join vision_uploads u on u.image_id = i.image_id
            where i.batch_id = :id order by i.position
        """),
        {"id": number},
    )
    return Batch(**row._asdict(), images=[BatchImage(*image) for image in images])


def running(rows: Connection, number: int) -> None:
    """The work on a batch has begun."""
    rows.execute(text("update vision_batches set status = 'running', error = null where id = :id"), {"id": number})


def looked_at(rows: Connection, number: int, position: int, *, status: str, error: str | None, **kept: Any) -> None:
    """An image is `done`, with its answer and a stored view, or has `failed` and will have none, for the `error`.

    Args:
        kept: further columns of its row.
    """
    values = {name: json.dumps(value) if isinstance(value, dict) else value for name, value in kept.items()}
    sets = "".join(f", {name} = :{name}" for name in values)
    where = "batch_id = :batch and position = :position"
    statement = text(f"update vision_batch_images set status = :status, error = :error{sets} where {where}")
    whose = {"batch": number, "position": position, "status": status, "error": error}
    rows.execute(statement, {**values, **whose})


def reported(rows: Connection, number: int, report_key: str, size: int) -> None:
    """The report of a batch is stored; `size` in bytes."""
    stored = text("update vision_batches set report_key = :key, report_bytes = :size where id = :id")
    rows.execute(stored, {"key": report_key, "size": size, "id": number})


def _image_ids(order: BatchOrder) -> list[UUID]:
    try:
        ids = [UUID(image.image_id) for image in order.images]
    except ValueError as error:
        raise BadInput("images: an image_id is not one that an upload returned", field="images") from error
    if len(set(ids)) != len(ids):
        raise BadInput("images: an image appears twice in the batch", field="images")
    return ids


_START = text("""
    insert into vision_batches (reference, organization_id, user_query, model, unavailable, notes, urgent)
    values (:reference, :organization, :query, :model, :missing, :notes, :urgent)
    on conflict (reference) do nothing returning *
""")
