"""Decides which parts a stack needs, on which ports, and the environment they all share.

A part is needed unless a setting names a real service. Nothing is started or connected here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from imgpipe_orchestration.devstack import standins
from imgpipe_orchestration.devstack.mongo import Mongo
from imgpipe_orchestration.devstack.ports import LOOPBACK, TYPED, Ports
from imgpipe_orchestration.devstack.postgres import Postgres, url_of
from imgpipe_orchestration.devstack.process import Part
from imgpipe_orchestration.devstack.s3 import S3, PublicObjects
from imgpipe_orchestration.devstack.services import CodeServer, Daemon, Gateway, StandIns, Webserver
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

    def at(self, url: str) -> dict[str, str]:
        """The settings for a stand-in at `url`."""
        return {name: url + value if value.startswith("/") else value for name, value in self.settings.items()}


STAND_INS = (
    StandIn(
        "OpenAI",
        ("OPENAI_API_KEY", "OPENAI_BASE_URL"),
        {"OPENAI_API_KEY": "stand-in-openai-key", "OPENAI_BASE_URL": standins.OPENAI},
    ),
    StandIn(
        "Google Vision",
        ("GOOGLE_VISION_API_KEY", "GOOGLE_VISION_ENDPOINT"),
        {"GOOGLE_VISION_API_KEY": "stand-in-google-key", "GOOGLE_VISION_ENDPOINT": standins.GOOGLE},
    ),
    StandIn(
        "Flowise",
        ("FLOWISE_BASE_URL",),
        {"FLOWISE_BASE_URL": standins.FLOWISE, "FLOWISE_API_KEY": "stand-in-flowise-key"},
    ),
    StandIn(
        "the Vision Analysis API",
        ("EXTERNAL_API_GET_URL", "EXTERNAL_API_POST_URL", "EXTERNAL_API_KEY"),
        {
            "EXTERNAL_API_GET_URL": standins.VISION_ANALYSIS,
            "EXTERNAL_API_POST_URL": standins.VISION_ANALYSIS_UPLOAD,
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
        """Set MEDIA_FIRST_DAY, unless the user did, for the parts that start after this."""
        if not self.first_day_given:
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
    # None of ours in production: invented analyses must not be mixed with real ones, and our stores have no passwords.
    production = given.get("IMGPIPE_ENV") == "production"
    stores = () if production else tuple(name for name in STORES if name not in given)
    played = [s for s in STAND_INS if not production and not any(name in given for name in s.named_by)]
    ports = Ports(data_dir / "ports.json")
    values = _choose(given, ports, stores, played, production=production)
    settings = load({**values, "IMGPIPE_DATA_DIR": str(data_dir)}, data_dir=data_dir)
    check_settings(settings)
    ports.save()
    environment = {**settings.environment(), "DAGSTER_HOME": str(data_dir / "dagster")}
    shared = {**environ, **environment, MARKER: str(data_dir), "PYTHONUNBUFFERED": "1"}
    return Plan(
        data_dir,
        settings,
        environment,
        shared,
        _backends(data_dir, settings, ports.chosen, shared),
        _services(data_dir, settings, shared, dagster=dagster),
        ports,
        [stand_in.partner for stand_in in played],
        "MEDIA_FIRST_DAY" in given,
    )


def _choose(
    given: Mapping[str, str], ports: Ports, stores: tuple[str, ...], played: list[StandIn], *, production: bool
) -> dict[str, str]:
    """The stack's settings: the given ones, and for the others addresses and keys of our own parts."""

    def address(part: str) -> str:
        return f"http://{LOOPBACK}:{ports.choose(part)}"

    listening = {setting: str(ports.choose(part, given.get(setting))) for part, (setting, _) in TYPED.items()}
    own = {
        "GATEWAY_URL": f"http://{LOOPBACK}:{listening['GATEWAY_PORT']}",
        "DAGSTER_URL": f"http://{LOOPBACK}:{listening['DAGSTER_WEBSERVER_PORT']}",
    }
    if "DATABASE_URL" in stores:
        port = ports.choose("postgres")
        own["DATABASE_URL"] = url_of(port, "imgpipe")
        own["DAGSTER_PG_URL"] = url_of(port, "dagster", scheme="postgresql+psycopg2")
    if "S3_ENDPOINT" in stores:
        own |= {"S3_ACCESS_KEY": "imgpipe-development", "S3_SECRET_KEY": "imgpipe-development-secret"}
        own |= {"S3_ENDPOINT": address("s3"), "S3_PUBLIC_ENDPOINT": address("s3-public")}
    if "MONGODB_URL" in stores:
        database = given.get("MONGODB_DATABASE") or Settings.model_fields["mongodb_database"].default
        own["MONGODB_URL"] = f"mongodb://{LOOPBACK}:{ports.choose('mongo')}/{database}"
    if played:
        url = address("stand-ins")
        for stand_in in played:
            own |= stand_in.at(url)
    # Our own parts are on loopback, which downloads may not reach unless they are listed. In production that is the
    # gateway alone, which is asked by its public name.
    parts = () if production else ("gateway", "s3-public", "stand-ins")
    hosts = [given["ALLOWED_PRIVATE_HOSTS"]] if "ALLOWED_PRIVATE_HOSTS" in given else []
    hosts += [f"{LOOPBACK}:{ports.chosen[name]}" for name in parts if name in ports.chosen]
    return {**own, **given, **listening, "ALLOWED_PRIVATE_HOSTS": ",".join(hosts)}


def _backends(data_dir: Path, settings: Settings, ports: Mapping[str, int], shared: Mapping[str, str]) -> list[Part]:
    """Those of our stores and stand-ins that have got a port."""
    parts: list[Part] = []
    if port := ports.get("postgres"):
        parts.append(Postgres(data_dir / "postgres", port, environ=shared))
    if port := ports.get("s3"):
        keys = {"access_key": settings.s3_access_key, "secret_key": settings.s3_secret_key}
        # Not the listings' bucket, which also has the originals: the gateway serves its public files.
        public = (settings.s3_bucket_name,)
        origin = next(iter(settings.origins), "")
        parts.append(S3(data_dir / "s3", port, **keys, origin=origin, environ=shared))
        parts.append(PublicObjects(data_dir / "s3", ports["s3-public"], buckets=public, environ=shared))
    if port := ports.get("mongo"):
        parts.append(Mongo(data_dir / "mongo", port, environ=shared))
    if port := ports.get("stand-ins"):
        parts.append(StandIns(data_dir / "stand-ins", port, environ=shared))
    return parts


def _services(data_dir: Path, settings: Settings, shared: Mapping[str, str], *, dagster: bool) -> list[Part]:
    gateway = Gateway(data_dir / "gateway", settings.gateway_port, environ=shared)
    home, port = data_dir / "dagster", settings.dagster_webserver_port
    ours = [CodeServer(home, environ=shared), Webserver(home, port, environ=shared), Daemon(home, environ=shared)]
    return [gateway, *ours] if dagster else [gateway]
