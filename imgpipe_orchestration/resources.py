"""The outside world as Dagster resources, injected through `Definitions`.

`database`, `s3`, `mongo` and `openai` give an asset of yours a client of each system's own library. An empty field
means the environment's setting (see `settings`). Dagster stores a run's configuration, so give keys as
`{"env": "OTHER_KEY"}`. The project's own assets take `backends`, the `Services` of the settings.

Imports and connections are made at the first use.
"""

import logging
import os
from threading import Lock
from typing import TYPE_CHECKING, Any

import dagster as dg
from dagster_aws.s3 import S3Resource as AwsS3Resource
from pydantic import Field

from imgpipe_orchestration.errors import SettingsError
from imgpipe_orchestration.settings import Settings, load
from imgpipe_orchestration.telemetry import logs
from imgpipe_orchestration.telemetry.processes import PROCESS_TAG, describe_process

if TYPE_CHECKING:
    from openai import OpenAI
    from pymongo.database import Database
    from sqlalchemy import Engine

    from imgpipe_orchestration.wiring.services import Services


class DatabaseResource(dg.ConfigurableResource[Any]):
    """PostgreSQL with the project's tables and queues."""

    url: str = Field(default="", description="postgresql://...; empty: taken from DATABASE_URL")

    def get_engine(self) -> "Engine":
        """A new SQLAlchemy engine; its caller disposes of it."""
        from imgpipe_orchestration.storage.rows import connect

        return connect(self.url or load().database_url)


class S3Resource(AwsS3Resource):
    """dagster-aws's resource for the object store: uploads, originals, variants, listings, avatars."""

    def get_client(self) -> Any:
        """A new boto3 client for S3."""
        s = load()
        filled = {
            "endpoint_url": self.endpoint_url or s.s3_endpoint or None,
            "region_name": self.region_name or s.s3_region,
        }
        if not self.profile_name:  # which has keys of its own
            filled["aws_access_key_id"] = self.aws_access_key_id or s.s3_access_key or None
            filled["aws_secret_access_key"] = self.aws_secret_access_key or s.s3_secret_key or None
        return AwsS3Resource(**{**self.model_dump(), **filled}).get_client()


class MongoResource(dg.ConfigurableResource[Any]):
    """MongoDB with the news documents, by pymongo: one pool a process, timeouts, retryable writes."""

    url: str = Field(default="", description="mongodb://...; empty: taken from MONGODB_URL")
    database: str = Field(default="", description="when the URL names none; empty: taken from MONGODB_DATABASE")

    def get_database(self) -> "Database[dict[str, Any]]":
        """pymongo's database, over a new client; its caller closes that (`get_database().client`)."""
        from imgpipe_orchestration.storage.documents import Documents

        s = load()
        return Documents(self.url or s.mongodb_url, database=self.database or s.mongodb_database).database


class OpenAIResource(dg.ConfigurableResource[Any]):
    """OpenAI: looking at images, embeddings, drawing avatars. The project's own calls go through the ledger."""

    api_key: str = Field(default="", description="Empty: taken from OPENAI_API_KEY")
    base_url: str = Field(default="", description="Empty: taken from OPENAI_BASE_URL")

    def get_client(self) -> "OpenAI":
        """A new client of OpenAI's library; its caller closes it. What is asked with it is not in the ledger, and no
        budget counts it."""
        from openai import OpenAI

        s = load()
        return OpenAI(api_key=self.api_key or s.openai_api_key, base_url=self.base_url or s.openai_base_url)


class BackendsResource(dg.ConfigurableResource[Any]):
    """Everything a stage needs, as the same `Services` that the gateway uses."""

    @property
    def services(self) -> "Services":
        """Connections and clients, opened on first use and kept for the process, so that a sensor does not connect to
        PostgreSQL at every tick.

        Raises:
            SettingsError: a variable is missing or wrong; the message names it.
        """
        from imgpipe_orchestration.telemetry import tracing
        from imgpipe_orchestration.wiring.services import Services

        settings = load()
        with _KEEPING:
            found = _KEPT.get(settings)
            if found is None:
                while len(_KEPT) >= _MOST_KEPT:
                    _KEPT.pop(next(iter(_KEPT))).close()
                tracing.configure()
                found = _KEPT[settings] = Services(settings)
            return found

    def setup_for_execution(self, context: dg.InitResourceContext) -> None:
        """In a run, configure the logs, which would otherwise be unredacted warnings only. For a run of the `dagster`
        command, note its process, which no launcher knows: run monitoring would take it for dead."""
        if context.run is None:
            return
        if not logging.getLogger().handlers:
            try:
                logs.configure(**self.services.settings.logging())
            except SettingsError:  # the step tells of it
                logs.configure()
        if context.instance is not None and context.run.remote_job_origin is None:
            context.instance.add_run_tags(context.run.run_id, {PROCESS_TAG: describe_process(os.getpid())})

    def teardown_after_execution(self, context: dg.InitResourceContext) -> None:
        """End the worker processes of a run; connections stay for the next one."""
        self.services.close_workers()


_KEPT: dict[Settings, "Services"] = {}
_MOST_KEPT = 2
"""Usually a process has one set of settings, tests have many."""
_KEEPING = Lock()
"""The code server evaluates sensors in several threads."""


def build() -> dict[str, Any]:
    """The resources by their keys, for the root `Definitions`."""
    # Hardcoded, because Dagster validates others at every tick: 10 of a tick's 14 ms (docs/performance.md).
    of_sensors = dg.ResourceDefinition.hardcoded_resource(BackendsResource(), "What `backends` is, for sensors.")
    return {
        "database": DatabaseResource.configure_at_launch(),
        "s3": S3Resource.configure_at_launch(),
        "mongo": MongoResource.configure_at_launch(),
        "openai": OpenAIResource.configure_at_launch(),
        "backends": BackendsResource(),
        "sensor_backends": of_sensors,
    }
