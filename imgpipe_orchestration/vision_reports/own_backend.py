"""Our own analysis backend, over this project's tables, bucket and vision model. The gateway serves it to others."""

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
    from imgpipe_orchestration.vision_reports.batch_work import BatchWorker


class OwnBackend:
    """`AnalysisBackend` over this project's tables and bucket."""

    def __init__(self, services: Services, worker: BatchWorker | None = None) -> None:
        self._services = services
        self._worker = worker
        if worker is not None:
            worker.warm_up()

    def available_models(self) -> list[str]:
        models = dict.fromkeys(choice.model for choice in self._services.models.choices("report"))
        return list(models) or [self._services.settings.openai_vision_model]  # batches wait until there is one

    def upload(self, picture: ImageFile, organization_id: str) -> str:
        return str(self.store(picture, organization_id).image_id)

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

    def start(self, order: BatchOrder) -> str:
        return str(self.open(order)[0])

    def open(self, order: BatchOrder, model: str = "") -> tuple[UUID, BatchState]:
        """As `start`, with one of `available_models` (default: the first); returns the batch's state too.

        Raises:
            BadInput, NotFound: as `batches.start`, or the model is not available.
        """
        models = self.available_models()
        if model and model not in models:
            raise BadInput(f"model {model!r} is not available; there is {', '.join(models)}", field="model")
        return batches.start(self._services.engine, self._services.claims, order, model or models[0])

    def status(self, batch_id: str) -> BatchStatus:
        return batches.status(self._services.engine, _id(batch_id))

    def advance(self, batch_id: str, owner: str) -> BatchStatus:
        """Works on the batch, unless another run does or its next try is not due."""
        status = self.status(batch_id)
        open_ = status.state in {BatchState.QUEUED, BatchState.RUNNING}
        if self._worker is not None and open_:
            self._worker.work_on(owner, batches.head(self._services.engine, _id(batch_id)).id)
            return self.status(batch_id)
        return status

    def report(self, batch_id: str) -> bytes:
        batch = batches.head(self._services.engine, _id(batch_id))
        if batch.status != BatchState.COMPLETED:
            raise Conflict(f"Batch {batch_id} has no report: it is {batch.status}")
        return self._services.vision_bucket.get(batch.report_key, size=batch.report_bytes)

    def close(self) -> None:
        """Nothing to do: `Services` closes the connections."""


def _id(batch_id: str) -> UUID:
    try:
        return UUID(batch_id)
    except ValueError:
        raise NotFound(f"No batch {plain_text(batch_id, 60)}") from None
