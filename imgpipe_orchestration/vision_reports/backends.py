"""Finds the analysis backend of a cron job; the gateway serves one of them (`backend_routes`)."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from imgpipe_orchestration.partners.analysis_backend import AnalysisBackend
from imgpipe_orchestration.partners.ssrf import Guard

if TYPE_CHECKING:
    from imgpipe_orchestration.services import Services


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
