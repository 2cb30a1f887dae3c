"""Analysis backends, over HTTP; the gateway serves one of them (`backend_routes`)."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from imgpipe_orchestration.errors import BadImage, NotFound, PartnerRefused, PartnerUnavailable
from imgpipe_orchestration.partners.analysis_backend import AnalysisBackendApi
from imgpipe_orchestration.partners.ssrf import Guard
from imgpipe_orchestration.vision_reports.model import BatchOrder, BatchState, BatchStatus, ImageFile
from imgpipe_orchestration.web.names import plain_text

if TYPE_CHECKING:
    from imgpipe_orchestration.services import Services

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


class AnalysisBackend:
    """Takes images, analyses them as a batch, and gives a report."""

    def __init__(self, url: str, key: str = "", *, guard: Guard | None = None, timeout: float = 60.0) -> None:
        self._api = AnalysisBackendApi(url, key, guard=guard, timeout=timeout)

    def upload(self, picture: ImageFile, organization_id: str) -> str:
        """Hand one image over; returns its id at the backend.

        Raises:
            BadImage: it refuses this image. Other errors concern all images.
        """
        try:
            return self._api.upload(
                picture.data, filename=picture.name, media_type=picture.mime, organization_id=organization_id
            )
        except PartnerRefused as error:
            if error.partner_status in _OF_THE_IMAGE:
                raise BadImage(error.public, detail=error.detail) from error
            raise

    def start(self, order: BatchOrder) -> str:
        """Start a batch and return its id. The same order twice gives the same batch."""
        body: dict[str, Any] = {
            "organization_id": order.organization_id,
            "user_query": order.user_query,
            "images": [asdict(image) for image in order.images],
            "missing": [asdict(missing) for missing in order.missing],
            "notes": order.notes,
        }
        body |= {} if order.urgent else {"urgent": False}  # other backends need not know the word
        return self._api.start(body, reference=order.reference)

    def status(self, batch_id: str) -> BatchStatus:
        """How far the batch is.

        Raises:
            NotFound: it knows no such batch.
        """
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

    def report(self, batch_id: str) -> bytes:
        """The HTML report of a completed batch."""
        return self._api.report(batch_id)

    def close(self) -> None:
        """Close its connections."""
        self._api.close()


def backend_at(services: Services, url: str) -> AnalysisBackend:
    """The backend at `url`. BACKEND_API_KEY goes to our gateway and to the host of BACKEND_API_URL only."""
    settings = services.settings
    timeout = settings.partner_timeout_seconds
    if _place(url) in {_place(settings.gateway_url), _place(settings.public_base_url)}:
        return AnalysisBackend(url, settings.backend_api_key or settings.admin_api_key, timeout=timeout)
    if _place(url)[:3] == _place(settings.backend_api_url)[:3]:
        return AnalysisBackend(url, settings.backend_api_key, timeout=timeout)
    # A cron job may name any other address: it does not get the key, and is no way into the private network.
    return AnalysisBackend(url, guard=Guard.for_customers(settings), timeout=timeout)


def _place(url: str) -> tuple[str, str, int | None, str]:
    """(scheme, host, port, path) of an address, normalised: `http://localhost:8000/` is `http://127.0.0.1:8000`."""
    parts = urlsplit(url)
    host = "127.0.0.1" if parts.hostname in {"localhost", "::1"} else parts.hostname or ""
    port = parts.port or {"http": 80, "https": 443}.get(parts.scheme)
    return parts.scheme, host, port, parts.path.rstrip("/")
