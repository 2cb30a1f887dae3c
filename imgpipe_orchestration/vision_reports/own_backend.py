"""Our own analysis backend, over this project's tables, bucket and vision model. The gateway serves it."""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import UUID, uuid4

from imgpipe_orchestration.errors import BadInput, Conflict, NotFound
from imgpipe_orchestration.vision_reports import batches
from imgpipe_orchestration.vision_reports.batches import Upload
from imgpipe_orchestration.vision_reports.model import IMAGE_BYTES, BatchOrder, BatchState, BatchStatus, ImageFile
from imgpipe_orchestration.web.names import plain_text

if TYPE_CHECKING:
    from imgpipe_orchestration.services import Services


class OwnBackend:
    """What the routes of the analysis backend do. Runs of `vision_batches` work on the batches."""

    def __init__(self, services: Services) -> None:
        self._services = services

    def available_models(self) -> list[str]:
        models = dict.fromkeys(choice.model for choice in self._services.models.choices("report"))
        return list(models) or [self._services.settings.openai_vision_model]  # batches wait until there is one

    def store(self, picture: ImageFile, organization_id: str) -> Upload:
        """Store an image: its bytes first, then its row.

        Raises:
            BadImage, TooLarge: its content is no usable image; name and declared type do not matter.
        """
        from imgpipe_orchestration.imaging.limits import Limits
        from imgpipe_orchestration.imaging.reading.sniff import sniff

        found = sniff(picture.data, Limits(max_bytes=IMAGE_BYTES))
        image_id = uuid4()
        upload = Upload(
            image_id=image_id,
            organization_id=organization_id,
            name=plain_text(picture.name, 200) or f"image.{found.extension}",
            object_key=f"images/{image_id}.{found.extension}",
            bytes=len(picture.data),
            width=found.width,
            height=found.height,
            format=found.format,
        )
        self._services.vision_bucket.put(upload.object_key, picture.data, content_type=found.mime)
        batches.add_upload(self._services.engine, upload)
        return upload

    def open(self, order: BatchOrder, model: str = "") -> tuple[UUID, BatchState]:
        """Start a batch with one of `available_models` (default: the first); returns its id and state. The same order
        twice gives the same batch.

        Raises:
            BadInput, NotFound: as `batches.start`, or the model is not available.
        """
        models = self.available_models()
        if model and model not in models:
            raise BadInput(f"model {model!r} is not available; there is {', '.join(models)}", field="model")
        return batches.start(self._services.engine, self._services.claims, order, model or models[0])

    def status(self, batch_id: str) -> BatchStatus:
        return batches.status(self._services.engine, _id(batch_id))

    def report(self, batch_id: str) -> bytes:
        batch = batches.head(self._services.engine, _id(batch_id))
        if batch.status != BatchState.COMPLETED:
            raise Conflict(f"Batch {batch_id} has no report: it is {batch.status}")
        return self._services.vision_bucket.get(batch.report_key, size=batch.report_bytes)


def _id(batch_id: str) -> UUID:
    try:
        return UUID(batch_id)
    except ValueError:
        raise NotFound(f"No batch {plain_text(batch_id, 60)}") from None
