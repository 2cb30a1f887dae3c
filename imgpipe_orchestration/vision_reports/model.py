"""States, records and pure functions of vision reports."""

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from imgpipe_orchestration.errors import Permanent, Planned

BATCH_SECONDS = 3600.0
"""How long a backend may work on a batch."""

IMAGE_BYTES = 25 * 1024 * 1024
"""Largest image of an analysis."""

FIRST_DAY = "2025-01-01"
"""First partition of the reports; older analyses count as created on that day."""


class ExecutionStatus(StrEnum):
    """States of one execution of a cron job."""

    RUNNING = "running"  # asked for, being listed, or some of its analyses still on their way
    SUCCESS = "success"  # every analysis delivered (or none was unprocessed)
    PARTIAL = "partial"  # some delivered, some failed
    FAILED = "failed"  # the list could not be fetched, or every analysis failed


class ExecutionTrigger(StrEnum):
    """What an execution was started by."""

    SCHEDULED = "scheduled"  # the job's schedule
    MANUAL = "manual"  # POST /cron-jobs/{id}/run
    COMMAND = "command"  # imgpipe vision-reports run
    BACKFILL = "backfill"  # a Dagster backfill over days


class StillWaiting(Planned):
    """The backend has not finished. No attempt is spent; the analysis is polled again after `retry_after` seconds."""

    title = "Waiting for the backend"


class TimedOut(Permanent):
    """A backend did not finish a batch in its time: BATCH_SECONDS, or three days if it is not urgent."""

    status = 504
    report = True


@dataclass(frozen=True, slots=True)
class ApiAccess:
    """The external API and the backend of an execution. The addresses may contain keys, too."""

    get_url: str = field(repr=False)
    post_url: str = field(repr=False)
    key: str = field(repr=False)
    backend_url: str = field(repr=False)
    organization_id: str
    urgent: bool = True
    """False: its reports may take a day, at half the price."""
    operators_backend: bool = False
    """Whether an operator named the backend on the command line: it gets BACKEND_API_KEY and may be a private address.
    Anyone who may create cron jobs names the backends of those."""


@dataclass(frozen=True, slots=True)
class Document:
    """A file of an analysis. `url` may contain a signature; it is empty when the API listed none. Several files may
    have the same `name`."""

    name: str
    url: str = field(repr=False)
    kind: str

    @property
    def holds_descriptions(self) -> bool:
        """Whether it is the JSON of descriptions rather than an image."""
        return self.kind.casefold() == "json" or self.name.casefold().endswith(".json")


@dataclass(frozen=True, slots=True)
class Analysis:
    """A row of `vision_analyses` with what is needed to work on it."""

    id: int
    vision_analysis_id: str
    organization_id: str
    execution_id: int
    user_query: str
    documents: tuple[Document, ...]
    reference: str
    batch_id: str | None
    waited: float | None
    """Seconds since its batch was submitted, by the database's clock; None: none was submitted."""
    upload_started_at: datetime | None
    redelivery: bool
    connection: ApiAccess
