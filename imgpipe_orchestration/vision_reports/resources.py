"""The crew as a Dagster resource: one for all steps of a run.

Dagster's in-process executor runs mapped steps one after another. So the analyses are not worked on by the steps: the
step that finds them hands them to the crew, which works on all at once, and each analysis's own step waits for its
ending. A step that is re-executed alone finds no crew and works by itself.
"""

from typing import TYPE_CHECKING, Any

import dagster as dg
from pydantic import PrivateAttr

if TYPE_CHECKING:
    from collections.abc import Sequence

    from imgpipe_orchestration.services import Services
    from imgpipe_orchestration.storage.claims import Claim
    from imgpipe_orchestration.vision_reports.batch_work import BatchWorker
    from imgpipe_orchestration.vision_reports.crew import Crew, Ending
    from imgpipe_orchestration.vision_reports.journey import Journey


class VisionCrewResource(dg.ConfigurableResource[Any]):
    """Works on a run's analyses in threads. How many at once: VISION_PARALLEL_ANALYSES."""

    _crew: "Crew | None" = PrivateAttr(default=None)
    _worker: "BatchWorker | None" = PrivateAttr(default=None)
    _journey: "Journey | None" = PrivateAttr(default=None)
    _untold: set[int] = PrivateAttr(default_factory=set)
    _told: list[int] = PrivateAttr(default_factory=list)

    def take_on(self, services: "Services", owner: str, claims: "Sequence[Claim]") -> None:
        """Begin to work on these; returns at once."""
        if self._crew is None:
            from imgpipe_orchestration.vision_reports import analyses
            from imgpipe_orchestration.vision_reports.batch_work import BatchWorker
            from imgpipe_orchestration.vision_reports.crew import Crew
            from imgpipe_orchestration.vision_reports.journey import Journey

            settings = services.settings
            self._worker = BatchWorker(services)
            self._journey = Journey(services, self._worker)
            self._crew = Crew(
                services.claims,
                analyses.QUEUE,
                self._journey.turn,
                owner,
                hands=settings.vision_parallel_analyses,
                patience=settings.vision_patience_seconds,
            )
        self._crew.start(claims)
        self._untold |= {claim.item_id for claim in claims}

    def ending(self, services: "Services", owner: str, analysis_id: int) -> "Ending":
        """How this analysis ended, once it has."""
        from imgpipe_orchestration.vision_reports import analyses
        from imgpipe_orchestration.vision_reports.crew import Ending

        if self._crew is None or not self._crew.has(analysis_id):
            claim = analyses.take(services.claims, owner, analysis_id)
            if claim is None:
                return Ending(analysis_id, "lost", "it is delivered, or another run works on it")
            self.take_on(services, owner, [claim])
        assert self._crew is not None  # noqa: S101 - take_on made it
        found = self._crew.ending(analysis_id)
        self._untold.discard(analysis_id)
        self._told.append(analysis_id)
        return found

    def all_told(self) -> list[int]:
        """The analyses whose endings were asked for, once that is all of them; empty before."""
        return [] if self._untold else self._told

    def teardown_after_execution(self, context: dg.InitResourceContext) -> None:
        """End the crew; what it has not finished goes back to the queue when the run's end is noticed."""
        if self._crew is not None:
            self._crew.close()
        for part in (self._worker, self._journey):
            if part is not None:
                part.close()
        self._crew = self._worker = self._journey = None
