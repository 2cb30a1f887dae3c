"""The one interface of an analysis backend, and which one a URL means."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from imgpipe_orchestration.vision_reports.model import BatchOrder, BatchStatus

if TYPE_CHECKING:
    from imgpipe_orchestration.services import Services
    from imgpipe_orchestration.vision_reports.batch_work import BatchWorker


@dataclass(frozen=True, slots=True)
class Picture:
    """An image to hand over. `data` is known to be an image; `name` is only a label."""

    name: str
    data: bytes
    mime: str


class AnalysisBackend(Protocol):
    """Takes images, analyses them as a batch, gives a report. `contracts` of the tests runs against each."""

    def available_models(self) -> list[str]:
        """Names of the models it can use, the default first."""

    def upload(self, picture: Picture, organization_id: str) -> str:
        """Hand one image over; returns its id there.

        Raises:
            Permanent: it does not take this image.
        """

    def start(self, order: BatchOrder) -> str:
        """Start a batch and return its id. The same order twice gives the same batch."""

    def status(self, batch_id: str) -> BatchStatus:
        """How far the batch is.

        Raises:
            NotFound: it knows no such batch.
        """

    def advance(self, batch_id: str, owner: str) -> BatchStatus:
        """As `status`, after doing what this process can do about it: our own backend works on a batch."""

    def report(self, batch_id: str) -> bytes:
        """The HTML report of a completed batch."""

    def close(self) -> None:
        """Close its connections."""


def backend_at(services: Services, url: str, worker: BatchWorker | None = None) -> AnalysisBackend:
    """The backend at `url`. Our own gateway's address means our own tables, without the way over HTTP.

    Args:
        worker: works on our own backend's batches in this process; without one they wait for a run that does.
    """
    from imgpipe_orchestration.vision_reports.own_backend import OwnBackend
    from imgpipe_orchestration.vision_reports.remote_backend import RemoteBackend

    ours = {address.rstrip("/") for address in (services.settings.gateway_url, services.settings.public_base_url)}
    if url.rstrip("/") in ours:
        return OwnBackend(services, worker)
    return RemoteBackend(url, services.settings.backend_api_key, timeout=services.settings.partner_timeout_seconds)
