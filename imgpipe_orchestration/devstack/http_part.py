"""Base class of parts that serve HTTP."""

from __future__ import annotations

import http.client
from typing import ClassVar

from imgpipe_orchestration.devstack.ports import LOOPBACK
from imgpipe_orchestration.devstack.process import PROBE_SECONDS, Part


class HttpPart(Part):
    """It is ready once `health_path` is answered, and works while `works_path` is, with any status but 5xx."""

    health_path: ClassVar[str] = "/health"
    works_path: ClassVar[str] = ""
    """Empty: `health_path`."""

    @property
    def url(self) -> str:
        return f"http://{LOOPBACK}:{self.port}"

    def answers(self) -> bool:
        return self._answered(self.health_path)

    def works(self) -> bool:
        return self._answered(self.works_path or self.health_path)

    def _answered(self, path: str) -> bool:
        connection = http.client.HTTPConnection(LOOPBACK, self.port, timeout=PROBE_SECONDS)
        try:
            connection.request("GET", path)
            return connection.getresponse().status < 500
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()
