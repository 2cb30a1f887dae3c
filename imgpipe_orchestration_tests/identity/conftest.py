"""A live gateway and a browser before it."""

from __future__ import annotations

from imgpipe_orchestration_tests.gateway.conftest import browser
from imgpipe_orchestration_tests.media.conftest import make_gateway

__all__ = ["browser", "make_gateway"]
