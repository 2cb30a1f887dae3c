"""An analysis backend elsewhere, over HTTP."""

from __future__ import annotations

from dataclasses import asdict

from imgpipe_orchestration.errors import BadImage, NotFound, PartnerRefused, PartnerUnavailable
from imgpipe_orchestration.partners.analysis_backend import AnalysisBackendApi
from imgpipe_orchestration.partners.ssrf import Guard
from imgpipe_orchestration.vision_reports.model import BatchOrder, BatchState, BatchStatus, ImageFile
from imgpipe_orchestration.web.names import plain_text

_STATES = {
    "queued": BatchState.QUEUED,
    "pending": BatchState.QUEUED,
    "running": BatchState.RUNNING,
    "processing": BatchState.RUNNING,
    "completed": BatchState.COMPLETED,
    "failed": BatchState.FAILED,
}
"""The contract's states, and two other names that some backends use."""

_OF_THE_IMAGE = frozenset({None, 400, 413, 415, 422})
"""HTTP statuses that refuse one image; None is a 2xx answer that lists it as rejected. Other statuses (a refused key,
a wrong address) concern all images, and fail the analysis."""


class RemoteBackend:
    """`AnalysisBackend` over HTTP."""

    def __init__(self, url: str, key: str = "", *, guard: Guard | None = None, timeout: float = 60.0) -> None:
        self._api = AnalysisBackendApi(url, key, guard=guard, timeout=timeout)

    def upload(self, picture: ImageFile, organization_id: str) -> str:
        try:
            return self._api.upload(
                picture.data, filename=picture.name, media_type=picture.mime, organization_id=organization_id
            )
        except PartnerRefused as error:
            if error.partner_status in _OF_THE_IMAGE:
                raise BadImage(error.public, detail=error.detail) from error
            raise

    def start(self, order: BatchOrder) -> str:
        body = {
            "organization_id": order.organization_id,
            "user_query": order.user_query,
            "images": [asdict(image) for image in order.images],
            "missing": [asdict(missing) for missing in order.missing],
            "notes": order.notes,
        }
        return self._api.start(body, reference=order.reference)

    def status(self, batch_id: str) -> BatchStatus:
        try:
            told = self._api.status(batch_id)
        except PartnerRefused as error:
            if error.partner_status == 404:
                raise NotFound(f"The analysis backend does not know batch {plain_text(batch_id, 100)}") from error
            raise
        state = _STATES.get(told.status)
        if state is None:
            word = plain_text(told.status, 40)
            raise PartnerUnavailable(f"The analysis backend says that the batch is {word!r}, which we do not know")
        return BatchStatus(state, told.done, told.total, plain_text(told.error, 300), told.retry_after)

    def advance(self, batch_id: str, _: str) -> BatchStatus:
        return self.status(batch_id)

    def report(self, batch_id: str) -> bytes:
        return self._api.report(batch_id)

    def close(self) -> None:
        self._api.close()
