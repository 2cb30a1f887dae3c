"""The outside world as Dagster resources, injected through `Definitions`.

Each has the settings of one system; an empty field means the environment's (see `settings`), so that a test, another
deployment or a single run can point one elsewhere. Dagster stores what a run is given, so a key is named and not
spelled out: `{"env": "OTHER_KEY"}`. `backends` gathers them into the `Services` that the features' code takes. Nothing
heavy is imported and nothing is opened before a run or a sensor asks.
"""

import logging
from typing import TYPE_CHECKING, Any

import dagster as dg
from pydantic import Field

from imgpipe_orchestration import logs

if TYPE_CHECKING:
    from imgpipe_orchestration.services import Services
    from imgpipe_orchestration.settings import Settings


class DatabaseResource(dg.ConfigurableResource[Any]):
    """PostgreSQL with the project's tables and queues."""

    url: str = Field(default="", description="postgresql://...; empty: DATABASE_URL")

    def overrides(self) -> dict[str, str]:
        return {"database_url": self.url}


class S3Resource(dg.ConfigurableResource[Any]):
    """The object store: uploads, originals, variants, listings, avatars."""

    endpoint: str = Field(default="", description="empty: S3_ENDPOINT")
    access_key: str = Field(default="", description="empty: S3_ACCESS_KEY")
    secret_key: str = Field(default="", description="empty: S3_SECRET_KEY")
    region: str = Field(default="", description="empty: S3_REGION")

    def overrides(self) -> dict[str, str]:
        return {
            "s3_endpoint": self.endpoint,
            "s3_access_key": self.access_key,
            "s3_secret_key": self.secret_key,
            "s3_region": self.region,
        }


class MongoResource(dg.ConfigurableResource[Any]):
    """MongoDB with the news documents, by pymongo: one pool a process, timeouts, retryable writes."""

    url: str = Field(default="", description="mongodb://...; empty: MONGODB_URL")
    database: str = Field(default="", description="when the URL names none; empty: MONGODB_DATABASE")

    def overrides(self) -> dict[str, str]:
        return {"mongodb_url": self.url, "mongodb_database": self.database}


class OpenAIResource(dg.ConfigurableResource[Any]):
    """OpenAI: looking at images, embeddings, drawing avatars. Every call goes through the ledger."""

    api_key: str = Field(default="", description="empty: OPENAI_API_KEY")
    base_url: str = Field(default="", description="empty: OPENAI_BASE_URL")

    def overrides(self) -> dict[str, str]:
        return {"openai_api_key": self.api_key, "openai_base_url": self.base_url}


class BackendsResource(dg.ConfigurableResource[Any]):
    """Everything a stage needs, as the same `Services` that the gateway uses."""

    database: DatabaseResource
    s3: S3Resource
    mongo: MongoResource
    openai: OpenAIResource

    @property
    def services(self) -> "Services":
        """Connections and clients, opened on first use and kept for the process: a sensor that ticks every few seconds
        should not sign in to PostgreSQL each time.

        Raises:
            SettingsError: naming the variable that is missing or wrong.
        """
        from imgpipe_orchestration.settings import load

        overrides: dict[str, str] = {}
        for part in (self.database, self.s3, self.mongo, self.openai):
            overrides |= {name: value for name, value in part.overrides().items() if value}
        return _services_of(load().pointed(overrides))

    def setup_for_execution(self, context: dg.InitResourceContext) -> None:
        """In a run that we did not fork (in a pod of its own, or of the `dagster` command) see to the logs: warnings of
        its steps would go out unredacted, and all else nowhere. One of the command says where its process is, which
        no launcher can know: run monitoring would take it for dead."""
        if context.run is None:
            return
        if not logging.getLogger().handlers:
            logs.configure_as_set(self.services.settings)
        if context.instance is not None and context.run.remote_job_origin is None:
            from imgpipe_orchestration.runs.launcher import note_process

            note_process(context.instance, context.run.run_id)

    def teardown_after_execution(self, context: dg.InitResourceContext) -> None:
        """End the worker processes of a run; connections stay for the next one."""
        self.services.close_workers()


_KEPT: "dict[Settings, Services]" = {}
_MOST_KEPT = 2


def _services_of(settings: "Settings") -> "Services":
    """The `Services` of these settings; a process knows one set of settings, tests know many."""
    from imgpipe_orchestration import tracing
    from imgpipe_orchestration.services import Services

    found = _KEPT.get(settings)
    if found is None:
        while len(_KEPT) >= _MOST_KEPT:
            _KEPT.pop(next(iter(_KEPT))).close()
        tracing.configure(settings.otel_exporter_otlp_endpoint)
        found = _KEPT[settings] = Services(settings)
    return found


def build() -> dict[str, Any]:
    """The resources by their keys, for the root `Definitions`."""
    parts = {
        "database": DatabaseResource.configure_at_launch(),
        "s3": S3Resource.configure_at_launch(),
        "mongo": MongoResource.configure_at_launch(),
        "openai": OpenAIResource.configure_at_launch(),
    }
    return {**parts, "backends": BackendsResource(**parts), "sensor_backends": _ready_made()}


def build_backends() -> BackendsResource:
    """`backends` of the environment's settings, for code that calls a sensor or a check itself."""
    return BackendsResource(
        database=DatabaseResource(), s3=S3Resource(), mongo=MongoResource(), openai=OpenAIResource()
    )


def _ready_made() -> dg.ResourceDefinition:
    """The environment's `backends`, for sensors, which no Launchpad configures. Dagster would validate `backends` and
    the four in it anew for every tick, which took 10 of a tick's 14 ms in the code server (docs/performance.md)."""
    backends = build_backends()
    return dg.ResourceDefinition.hardcoded_resource(backends, "What `backends` is without configuration, for sensors.")
