"""The crew as a Dagster resource: one for all steps of a run, made at its first use."""

import threading
from typing import TYPE_CHECKING, Any

import dagster as dg
from pydantic import PrivateAttr

if TYPE_CHECKING:
    from imgpipe_orchestration.services import Services
    from imgpipe_orchestration.vision_reports.crew import Crew


class VisionCrewResource(dg.ConfigurableResource[Any]):
    """What works on the analyses of a run of vision reports side by side: one for all its steps."""

    _crew: "Crew | None" = PrivateAttr(default=None)
    _lock: Any = PrivateAttr(default_factory=threading.Lock)

    def crew(self, services: "Services", owner: str) -> "Crew":
        """The run's crew."""
        from imgpipe_orchestration.vision_reports.crew import Crew

        with self._lock:
            if self._crew is None:
                settings = services.settings
                patience, seconds = settings.vision_patience_seconds, settings.vision_run_seconds
                self._crew = Crew(services, owner, patience=patience, seconds=seconds)
            return self._crew

    def teardown_after_execution(self, context: dg.InitResourceContext) -> None:
        """Close the crew. A run status sensor puts unfinished analyses back into the queue."""
        if self._crew is not None:
            self._crew.close()
            self._crew = None
