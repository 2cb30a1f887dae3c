"""Decides which parts a stack needs, on which ports, and the environment they all share.

A part is needed unless a setting names a real service. Nothing is started or connected here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from imgpipe_orchestration.devstack.mongo import Mongo
from imgpipe_orchestration.devstack.ports import LOOPBACK, TYPED, Ports
from imgpipe_orchestration.devstack.postgres import Postgres, url_of
from imgpipe_orchestration.devstack.process import Part
from imgpipe_orchestration.devstack.s3 import S3, PublicObjects
from imgpipe_orchestration.devstack.services import CodeServer, Daemon, Gateway, StandIns, Webserver
from imgpipe_orchestration.devstack.standins import addresses
from imgpipe_orchestration.operations.startup import check_settings
from imgpipe_orchestration.settings import Settings, holds_secret, load

MARKER = "IMGPIPE_STACK"
"""In the environment of every process of a stack, and in no other: the data folder it belongs to."""


STORES = ("DATABASE_URL", "S3_ENDPOINT", "MONGODB_URL")
"""The settings that name a store; where one is not set, ours is started, except in production."""


@dataclass(frozen=True)
class StandIn:
    """A partner that a stand-in replaces unless one of the settings `named_by` is set. `settings` are those that point
    at the stand-in; a value that begins with a slash is a path below the stand-ins' URL."""

    partner: str
    named_by: tuple[str, ...]
    settings: Mapping[str, str]


STAND_INS = (
    StandIn(
        "OpenAI",
        ("OPENAI_API_KEY", "OPENAI_BASE_URL"),
        {"OPENAI_API_KEY": "stand-in-openai-key", "OPENAI_BASE_URL": addresses.OPENAI},
    ),
    StandIn(
        "Google Vision",
        ("GOOGLE_VISION_API_KEY", "GOOGLE_VISION_ENDPOINT"),
        {"GOOGLE_VISION_API_KEY": "stand-in-google-key", "GOOGLE_VISION_ENDPOINT": addresses.GOOGLE},
    ),
    StandIn(
        "Flowise",
        ("FLOWISE_BASE_URL",),
        {"FLOWISE_BASE_URL": addresses.FLOWISE, "FLOWISE_API_KEY": "stand-in-flowise-key"},
    ),
    StandIn(
        "the Vision Analysis API",
        ("EXTERNAL_API_GET_URL", "EXTERNAL_API_POST_URL", "EXTERNAL_API_KEY"),
        {
            "EXTERNAL_API_GET_URL": addresses.VISION_ANALYSIS,
            "EXTERNAL_API_POST_URL": addresses.VISION_ANALYSIS_UPLOAD,
            "EXTERNAL_API_KEY": "stand-in-external-key",
        },
    ),
)


@dataclass(frozen=True)
class Plan:
    """A stack to start."""

    data_dir: Path
    settings: Settings
    environment: dict[str, str]
    """The settings in force and DAGSTER_HOME: what `imgpipe env` shows."""
    shared: dict[str, str]
    """The whole environment of every part."""
    backends: list[Part]
    """What the services need before they start."""
    services: list[Part]
    ports: Ports
    stand_ins: list[str]
    """Partners that a stand-in plays."""
    first_day_given: bool
    """Whether MEDIA_FIRST_DAY is the user's; else the rows say."""

    @property
    def parts(self) -> list[Part]:
        return [*self.backends, *self.services]

    def begin_partitions(self, day: str) -> None:
        """Set MEDIA_FIRST_DAY for the parts that start after this."""
        self.environment["MEDIA_FIRST_DAY"] = self.shared["MEDIA_FIRST_DAY"] = day

    def public_environment(self) -> dict[str, str]:
        """What may be shown and written down: in development everything, in production no secret."""
        if not self.settings.production:
            return self.environment
        return {name: value for name, value in self.environment.items() if not holds_secret(name, value)}


def make_plan(
    data_dir: Path, environ: Mapping[str, str], *, dagster: bool = True, gateway_port: int | None = None
) -> Plan:
    """Decide what to start over `data_dir` (which must exist) under the environment `environ`.

    Raises:
        SettingsError: a variable that cannot be used.
    """
    given = {name.upper(): environ[name.upper()] for name in Settings.model_fields if environ.get(name.upper())}
    if gateway_port is not None:
        given["GATEWAY_PORT"] = str(gateway_port)
    ports = Ports(data_dir / "ports.json")
    # None in production: invented analyses must not be mixed with real ones, and our stores have no passwords.
    production = given.get("IMGPIPE_ENV") == "production"
    stores = () if production else tuple(name for name in STORES if name not in given)
    played = [s for s in STAND_INS if not production and not any(name in given for name in s.named_by)]
    values = _choose(given, ports, stores, played, production=production)
    settings = load({**values, "IMGPIPE_DATA_DIR": str(data_dir)}, data_dir=data_dir)
    check_settings(settings)
    environment = {**settings.environment(), "DAGSTER_HOME": str(data_dir / "dagster")}
    shared = {**environ, **environment, MARKER: str(data_dir), "PYTHONUNBUFFERED": "1"}
    backends = _backends(data_dir, stores, settings, ports, shared)
    if played:
        backends.append(StandIns(data_dir / "stand-ins", ports["stand-ins"], environ=shared))
    services = _services(data_dir, settings, shared, dagster=dagster)
    ports.save()
    partners = [s.partner for s in played]
    return Plan(
        data_dir, settings, environment, shared, backends, services, ports, partners, "MEDIA_FIRST_DAY" in given
    )


def _choose(
    given: Mapping[str, str], ports: Ports, stores: tuple[str, ...], played: list[StandIn], *, production: bool
) -> dict[str, str]:
    """The stack's settings: the given ones, and for the others addresses and keys of our own parts."""
    listening = {typed.setting: str(ports.choose(part, given.get(typed.setting))) for part, typed in TYPED.items()}
    own = {
        "GATEWAY_URL": f"http://{LOOPBACK}:{ports['gateway']}",
        "DAGSTER_URL": f"http://{LOOPBACK}:{ports['dagster-webserver']}",
    }
    if "DATABASE_URL" in stores:
        port = ports.choose("postgres")
        own["DATABASE_URL"] = url_of(port, "imgpipe")
        own["DAGSTER_PG_URL"] = url_of(port, "dagster", scheme="postgresql+psycopg2")
    if "S3_ENDPOINT" in stores:
        own |= {"S3_ACCESS_KEY": "imgpipe-development", "S3_SECRET_KEY": "imgpipe-development-secret"}
        own["S3_ENDPOINT"] = f"http://{LOOPBACK}:{ports.choose('s3')}"
        own["S3_PUBLIC_ENDPOINT"] = f"http://{LOOPBACK}:{ports.choose('s3-public')}"
    if "MONGODB_URL" in stores:
        database = given.get("MONGODB_DATABASE") or Settings.model_fields["mongodb_database"].default
        own["MONGODB_URL"] = f"mongodb://{LOOPBACK}:{ports.choose('mongo')}/{database}"
    if played:
        url = f"http://{LOOPBACK}:{ports.choose('stand-ins')}"
        for stand_in in played:
            own |= {n: url + value if value.startswith("/") else value for n, value in stand_in.settings.items()}
    # Our own parts are on loopback, which downloads may not reach unless they are listed. In production that is the
    # gateway alone, which is asked by its public name.
    parts = () if production else ("gateway", "s3-public", "stand-ins")
    hosts = [given["ALLOWED_PRIVATE_HOSTS"]] if "ALLOWED_PRIVATE_HOSTS" in given else []
    hosts += [f"{LOOPBACK}:{ports[name]}" for name in parts if name in ports]
    return {**own, **given, **listening, "ALLOWED_PRIVATE_HOSTS": ",".join(hosts)}


def _backends(
    data_dir: Path, stores: tuple[str, ...], settings: Settings, ports: Ports, shared: Mapping[str, str]
) -> list[Part]:
    parts: list[Part] = []
    if "DATABASE_URL" in stores:
        databases = ("imgpipe", "dagster")
        parts.append(Postgres(data_dir / "postgres", ports["postgres"], environ=shared, databases=databases))
    if "S3_ENDPOINT" in stores:
        keys = {"access_key": settings.s3_access_key, "secret_key": settings.s3_secret_key}
        # Not the listings' bucket, which also has the originals: the gateway serves its public files.
        public = (settings.s3_bucket_name,)
        origin = next(iter(settings.origins), "")
        parts.append(S3(data_dir / "s3", ports["s3"], **keys, origin=origin, environ=shared))
        parts.append(PublicObjects(data_dir / "s3", ports["s3-public"], buckets=public, environ=shared))
    if "MONGODB_URL" in stores:
        parts.append(Mongo(data_dir / "mongo", ports["mongo"], environ=shared))
    return parts


def _services(data_dir: Path, settings: Settings, shared: Mapping[str, str], *, dagster: bool) -> list[Part]:
    gateway = Gateway(data_dir / "gateway", settings.gateway_port, environ=shared)
    if not dagster:
        return [gateway]
    home = data_dir / "dagster"
    return [
        gateway,
        CodeServer(home, environ=shared),
        Webserver(home, settings.dagster_webserver_port, environ=shared),
        Daemon(home, environ=shared),
    ]
