"""The interface of analysis backends, and which backend a URL means."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol
from urllib.parse import urlsplit

from imgpipe_orchestration.partners.ssrf import Guard
from imgpipe_orchestration.vision_reports.model import BatchOrder, BatchStatus, ImageFile
from imgpipe_orchestration.vision_reports.own_backend import OwnBackend
from imgpipe_orchestration.vision_reports.remote_backend import RemoteBackend

if TYPE_CHECKING:
    from imgpipe_orchestration.services import Services
    from imgpipe_orchestration.vision_reports.batch_work import BatchWorker


class AnalysisBackend(Protocol):
    """Takes images, analyses them as a batch, and gives a report. One suite of tests runs against all of them."""

    def upload(self, picture: ImageFile, organization_id: str) -> str:
        """Hand one image over; returns its id at the backend.

        Raises:
            BadImage, TooLarge: it refuses this image. Other errors concern all images.
        """

    def start(self, order: BatchOrder) -> str:
        """Start a batch and return its id. The same order twice gives the same batch."""

    def status(self, batch_id: str) -> BatchStatus:
        """How far the batch is.

        Raises:
            NotFound: it knows no such batch.
        """

    def advance(self, batch_id: str, owner: str) -> BatchStatus:
        """As `status`; our own backend first works on a batch in this process, under claims of `owner`."""

    def report(self, batch_id: str) -> bytes:
        """The HTML report of a completed batch."""

    def close(self) -> None:
        """Close its connections."""


def backend_at(services: Services, url: str, worker: BatchWorker | None = None) -> AnalysisBackend:
    """The backend at `url`. For our own gateway's address it works on our tables directly, without HTTP.

    Args:
        worker: works on our own backend's batches in this process; without it they wait for a run of `vision_batches`.
    """
    settings = services.settings
    if _place(url) in {_place(settings.gateway_url), _place(settings.public_base_url)}:
        return OwnBackend(services, worker)
    timeout = settings.partner_timeout_seconds
    if _place(url)[:3] == _place(settings.backend_api_url)[:3]:
        return RemoteBackend(url, settings.backend_api_key, timeout=timeout)
    # A cron job may name any other address: it does not get the key, and is no way into the private network.
    return RemoteBackend(url, guard=Guard.for_customers(settings), timeout=timeout)


def _place(url: str) -> tuple[str, str, int | None, str]:
    """(scheme, host, port, path) of an address, normalised: `http://localhost:8000/` is `http://127.0.0.1:8000`."""
    parts = urlsplit(url)
    host = "127.0.0.1" if parts.hostname in {"localhost", "::1"} else parts.hostname or ""
    port = parts.port or {"http": 80, "https": 443}.get(parts.scheme)
    return parts.scheme, host, port, parts.path.rstrip("/")
