"""Whether a run is due."""

from __future__ import annotations

from imgpipe_orchestration.auto_marker.model import JOB, has_partition, partition_key, tick_due
from imgpipe_orchestration.auto_marker.store import UNKNOWN, ImageConfigs, News
from imgpipe_orchestration.errors import BackendUnavailable
from imgpipe_orchestration.services import Services
from imgpipe_orchestration.storage import heartbeats, job_instances


def due(services: Services) -> list[str] | str:
    """The partition of a customer who asked, or else of one with pending images once the next round is due; or why no
    run is. Of a round with nothing to do the heartbeat is written here, of others by their run: what a preview of the
    sensor in Dagster's UI asks for is never run.

    Jobs that somebody asked for and that cannot start because MongoDB is away get that as the reason they wait.

    Raises:
        BackendUnavailable: PostgreSQL is away.
    """
    asked = job_instances.first_due(services.engine, JOB)
    try:
        if not services.settings.mongodb_url:
            raise BackendUnavailable("No MongoDB is configured (MONGODB_URL): there is nothing to mark.")
        if asked is not None:
            services.documents.ping()
            return [_partition_of(asked)]
        return _of_the_round(services)
    except BackendUnavailable as away:
        if asked is not None:
            job_instances.keep_waiting(services.engine, JOB, away.public)
        return away.public


def is_time(services: Services) -> bool:
    """Whether the next round over every customer with pending images is due."""
    last = heartbeats.last(services.engine, JOB)
    return tick_due(last.age if last else None, services.settings.job_interval_minutes)


def _of_the_round(services: Services) -> list[str] | str:
    if not is_time(services):
        return "nothing was asked for and the next round is not due"
    opted_out = ImageConfigs(services.documents).opted_out()
    customer = News(services.documents).one_to_mark(opted_out=opted_out)
    if customer is None:
        heartbeats.beat(services.engine, JOB)
        return "no customer has pending images"
    return [_partition_of(customer)]


def _partition_of(customer: str) -> str:
    return partition_key(customer if has_partition(customer) else UNKNOWN)  # an id of an older release
