"""Whether a run is due."""

from __future__ import annotations

from dataclasses import dataclass

from imgpipe_orchestration.auto_marker.model import JOB, tick_due
from imgpipe_orchestration.auto_marker.store import ImageConfigs, News
from imgpipe_orchestration.errors import BackendUnavailable
from imgpipe_orchestration.services import Services
from imgpipe_orchestration.storage import heartbeats, job_instances
from imgpipe_orchestration.storage.claims import Queue


@dataclass(frozen=True)
class Due:
    """Whether a run is due, because of the schedule or because somebody asked; if not, `reason` says why."""

    scheduled: bool
    asked: bool
    reason: str = ""

    @property
    def anything(self) -> bool:
        return self.scheduled or self.asked


def due(services: Services) -> Due:
    """Whether a run is due. Of a round with nothing to do the heartbeat is written here, of others by their run: what a
    preview of the sensor in Dagster's UI asks for is never run.

    Jobs that somebody asked for and that cannot start because MongoDB is away get that as the reason they wait.

    Raises:
        BackendUnavailable: a database is away, or no MongoDB is configured.
    """
    asked = bool(services.claims.due_partitions(Queue(JOB), limit=1))
    try:
        if not services.settings.mongodb_url:
            raise BackendUnavailable("No MongoDB is configured (MONGODB_URL): there is nothing to mark.")
        return _looked(services, asked=asked)
    except BackendUnavailable as away:
        if asked:
            job_instances.keep_waiting(services.engine, JOB, away.public)
        raise


def _looked(services: Services, *, asked: bool) -> Due:
    last = heartbeats.last(services.engine, JOB)
    if not tick_due(last.age if last else None, services.settings.job_interval_minutes):
        if asked:
            services.documents.ping()
        return Due(scheduled=False, asked=asked, reason="nothing was asked for and the next round is not due")
    opted_out = ImageConfigs(services.documents).opted_out()
    scheduled = News(services.documents).anything_markable(opted_out=opted_out)
    if not scheduled:
        heartbeats.beat(services.engine, JOB)
    return Due(scheduled=scheduled, asked=asked, reason="no customer has pending images")
