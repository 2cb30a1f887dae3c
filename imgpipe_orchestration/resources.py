"""The outside world as Dagster resources, injected through `Definitions`.

Each has the settings of one system, and a client of its own library for an asset of yours. An empty field means the
environment's setting (see `settings`), so a test, another deployment or a single run can use another system. Dagster
stores a run's configuration, so give keys as `{"env": "OTHER_KEY"}`. `backends` makes of them the `Services` that the
features' code takes. Imports and connections are made at the first use.
"""

import logging
import os
from threading import Lock
from typing import TYPE_CHECKING, Any

import dagster as dg
from dagster_aws.s3 import S3Resource as AwsS3Resource
from pydantic import Field

from imgpipe_orchestration.telemetry import logs
from imgpipe_orchestration.telemetry.processes import PROCESS_TAG, describe_process

if TYPE_CHECKING:
    from openai import OpenAI
    from pymongo.database import Database
    from sqlalchemy import Engine

    from imgpipe_orchestration.services import Services
    from imgpipe_orchestration.settings import Settings


class SystemResource(dg.ConfigurableResource[Any]):
    """One outside system."""

    def overrides(self) -> dict[str, str]:
        """The settings that this resource's fields stand for, by their names; empty where the environment's apply."""
        raise NotImplementedError


class DatabaseResource(SystemResource):
    """PostgreSQL with the project's tables and queues."""

    url: str = Field(default="", description="postgresql://...; empty: taken from DATABASE_URL")

    def get_engine(self) -> "Engine":
        """A new SQLAlchemy engine; its caller disposes of it."""
        from imgpipe_orchestration.storage.rows import connect

        return connect(_pointed(self).database_url)

    def overrides(self) -> dict[str, str]:
        return {"database_url": self.url}


class S3Resource(AwsS3Resource):
    """dagster-aws's resource for the object store: uploads, originals, variants, listings, avatars."""

    def get_client(self) -> Any:
        """A new boto3 client for S3."""
        s = _pointed(self)
        keys = {"aws_access_key_id": s.s3_access_key, "aws_secret_access_key": s.s3_secret_key}
        where = {"endpoint_url": s.s3_endpoint or None, "region_name": s.s3_region}
        return AwsS3Resource(**{**self.model_dump(), **where, **keys}).get_client()

    def get_object_to_set_on_execution_context(self) -> "S3Resource":
        """Itself and not a client: `backends` is made of it."""
        return self

    def overrides(self) -> dict[str, str]:
        return {
            "s3_endpoint": self.endpoint_url or "",
            "s3_access_key": self.aws_access_key_id or "",
            "s3_secret_key": self.aws_secret_access_key or "",
            "s3_region": self.region_name or "",
        }


class MongoResource(SystemResource):
    """MongoDB with the news documents, by pymongo: one pool a process, timeouts, retryable writes."""

    url: str = Field(default="", description="mongodb://...; empty: taken from MONGODB_URL")
    database: str = Field(default="", description="when the URL names none; empty: taken from MONGODB_DATABASE")

    def get_database(self) -> "Database[dict[str, Any]]":
        """pymongo's database, over a new client; its caller closes that (`get_database().client`)."""
        from imgpipe_orchestration.storage.documents import Documents

        s = _pointed(self)
        return Documents(s.mongodb_url, database=s.mongodb_database).database

    def overrides(self) -> dict[str, str]:
        return {"mongodb_url": self.url, "mongodb_database": self.database}


class OpenAIResource(SystemResource):
    """OpenAI: looking at images, embeddings, drawing avatars. The project's own calls go through the ledger."""

    api_key: str = Field(default="", description="Empty: taken from OPENAI_API_KEY")
    base_url: str = Field(default="", description="Empty: taken from OPENAI_BASE_URL")

    def get_client(self) -> "OpenAI":
        """A new client of OpenAI's library; its caller closes it. What is asked with it is not in the ledger, and no
        budget counts it."""
        from openai import OpenAI

        s = _pointed(self)
        return OpenAI(api_key=s.openai_api_key, base_url=s.openai_base_url)

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
        """Connections and clients, opened on first use and kept for the process, so that a sensor does not connect to
        PostgreSQL at every tick.

        Raises:
            SettingsError: a variable is missing or wrong; the message names it.
        """
        return _services_of(_pointed(self.database, self.s3, self.mongo, self.openai))

    def setup_for_execution(self, context: dg.InitResourceContext) -> None:
        """In a run, configure the logs, which would otherwise be unredacted warnings only. For a run of the `dagster`
        command, note its process, which no launcher knows: run monitoring would take it for dead."""
        if context.run is None:
            return
        if not logging.getLogger().handlers:
            logs.configure(**self.services.settings.logging())
        if context.instance is not None and context.run.remote_job_origin is None:
            context.instance.add_run_tags(context.run.run_id, {PROCESS_TAG: describe_process(os.getpid())})

    def teardown_after_execution(self, context: dg.InitResourceContext) -> None:
        """End the worker processes of a run; connections stay for the next one."""
        self.services.close_workers()


def _pointed(*parts: SystemResource | S3Resource) -> "Settings":
    """The environment's settings, with those that the resources have of their own."""
    from imgpipe_orchestration.settings import load

    overrides = {name: value for part in parts for name, value in part.overrides().items() if value}
    return load().pointed(overrides)


_KEPT: "dict[Settings, Services]" = {}
_MOST_KEPT = 2
_KEEPING = Lock()
"""The code server evaluates sensors in several threads."""


def _services_of(settings: "Settings") -> "Services":
    """The kept `Services` of these settings. Usually a process has one set of settings, tests have many."""
    from imgpipe_orchestration.services import Services
    from imgpipe_orchestration.telemetry import tracing

    with _KEEPING:
        found = _KEPT.get(settings)
        if found is None:
            while len(_KEPT) >= _MOST_KEPT:
                _KEPT.pop(next(iter(_KEPT))).close()
            tracing.configure()
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
    # For sensors, which have no run configuration. Hardcoded, because Dagster validates others at every tick:
    # 10 of a tick's 14 ms (docs/performance.md).
    of_sensors = dg.ResourceDefinition.hardcoded_resource(
        build_backends(), "What `backends` is without configuration, for sensors."
    )
    return {**parts, "backends": BackendsResource(**parts), "sensor_backends": of_sensors}


def build_backends() -> BackendsResource:
    """`backends` with the environment's settings, for code that calls a sensor or a check directly."""
    return BackendsResource(
        database=DatabaseResource(), s3=S3Resource(), mongo=MongoResource(), openai=OpenAIResource()
    )
