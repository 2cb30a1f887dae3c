"""Decides which parts a stack needs, on which ports, and the environment they all share.

A part is needed unless a setting names a real service. Nothing is started or connected here.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from imgpipe_orchestration.avatars.model import PUBLIC_KEYS
from imgpipe_orchestration.devstack import standins
from imgpipe_orchestration.devstack.mongo import Mongo
from imgpipe_orchestration.devstack.ports import LOOPBACK, TYPED, Ports
from imgpipe_orchestration.devstack.postgres import Postgres, url_of
from imgpipe_orchestration.devstack.process import Part
from imgpipe_orchestration.devstack.s3 import S3, PublicObjects
from imgpipe_orchestration.devstack.services import CodeServer, Daemon, Gateway, StandIns, Webserver
from imgpipe_orchestration.operations.startup import check_settings
from imgpipe_orchestration.settings import Settings, load
from imgpipe_orchestration.telemetry.redaction import redact

STAND_INS = {
    "OpenAI": {"OPENAI_BASE_URL": standins.OPENAI, "OPENAI_API_KEY": "stand-in-openai-key"},
    "Google Vision": {"GOOGLE_VISION_ENDPOINT": standins.GOOGLE, "GOOGLE_VISION_API_KEY": "stand-in-google-key"},
    "Flowise": {"FLOWISE_BASE_URL": standins.FLOWISE, "FLOWISE_API_KEY": "stand-in-flowise-key"},
    "the Vision Analysis API": {
        "EXTERNAL_API_GET_URL": standins.VISION_ANALYSIS,
        "EXTERNAL_API_POST_URL": standins.VISION_ANALYSIS_UPLOAD,
        "EXTERNAL_API_KEY": "stand-in-external-key",
    },
}
"""Partners that a stand-in replaces unless one of these settings is set, each with the settings that point at it."""


def played_at(url: str, partners: Iterable[str] = STAND_INS) -> dict[str, str]:
    """The settings for stand-ins at `url`."""
    wanted = {name: value for partner in partners for name, value in STAND_INS[partner].items()}
    return {name: url + value if value.startswith("/") else value for name, value in wanted.items()}


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
        secrets = self.settings.secrets()

        def hidden(value: str) -> bool:
            # A short secret may be a part of any name.
            within = any(secret in value for secret in secrets if len(secret) >= 12)
            return within or value in secrets or redact(value) != value

        return {name: value for name, value in self.environment.items() if not hidden(value)}


def make_plan(
    data_dir: Path, environ: Mapping[str, str], *, dagster: bool = True, gateway_port: int | None = None
) -> Plan:
    """Decide what to start over `data_dir` (which must exist) under the environment `environ`.

    Raises:
        SettingsError: a variable that cannot be used.
    """
    given = {name.upper(): value for name in Settings.model_fields if (value := environ.get(name.upper(), "").strip())}
    if gateway_port is not None:
        given["GATEWAY_PORT"] = str(gateway_port)
    # None in production: invented analyses must not be mixed with real ones.
    production = given.get("IMGPIPE_ENV") == "production"
    played = [] if production else [one for one, named_by in STAND_INS.items() if not named_by.keys() & given]
    ports = Ports(data_dir / "ports.json")
    values = _choose(given, ports, played, production=production)
    code_port = ports.choose("code-server")
    settings = load({**values, "IMGPIPE_DATA_DIR": str(data_dir)}, data_dir=data_dir)
    check_settings(settings)
    ports.save()
    home = data_dir / "dagster"
    environment = {**settings.environment(), "DAGSTER_HOME": str(home)}
    shared = {**environ, **environment, "PYTHONUNBUFFERED": "1"}
    services: list[Part] = [Gateway(data_dir / "gateway", settings.gateway_port, environ=shared)]
    if dagster:
        webserver = Webserver(home, settings.dagster_webserver_port, environ=shared)
        services += [CodeServer(home, code_port, environ=shared), webserver, Daemon(home, environ=shared)]
    backends = _backends(data_dir, settings, ports.chosen, shared)
    given_day = "MEDIA_FIRST_DAY" in given
    return Plan(data_dir, settings, environment, shared, backends, services, ports, played, given_day)


def _choose(given: Mapping[str, str], ports: Ports, played: list[str], *, production: bool) -> dict[str, str]:
    """The stack's settings: the given ones, and for the others addresses and keys of our own parts."""

    def address(part: str) -> str:
        return f"http://{LOOPBACK}:{ports.choose(part)}"

    listening = {setting: str(ports.choose(part, given.get(setting))) for part, (setting, _) in TYPED.items()}
    own = {
        "GATEWAY_URL": f"http://{LOOPBACK}:{listening['GATEWAY_PORT']}",
        "DAGSTER_URL": f"http://{LOOPBACK}:{listening['DAGSTER_WEBSERVER_PORT']}",
    }
    if production:  # our stores have no passwords
        return {**own, **given, **listening}
    if "DATABASE_URL" not in given:
        port = ports.choose("postgres")
        own["DATABASE_URL"] = url_of(port, "imgpipe")
        own["DAGSTER_PG_URL"] = url_of(port, "dagster", scheme="postgresql+psycopg2")
    if "S3_ENDPOINT" not in given:
        own |= {"S3_ACCESS_KEY": "imgpipe-development", "S3_SECRET_KEY": "imgpipe-development-secret"}
        own |= {"S3_ENDPOINT": address("s3"), "S3_PUBLIC_ENDPOINT": address("s3-public")}
    if "MONGODB_URL" not in given:
        database = given.get("MONGODB_DATABASE") or Settings.model_fields["mongodb_database"].default
        own["MONGODB_URL"] = f"mongodb://{LOOPBACK}:{ports.choose('mongo')}/{database}"
    if played:
        own |= played_at(address("stand-ins"), played)
    # Our own parts are on loopback, which downloads may not reach unless they are listed.
    hosts = [given["ALLOWED_PRIVATE_HOSTS"]] if "ALLOWED_PRIVATE_HOSTS" in given else []
    parts = ("gateway", "s3-public", "stand-ins")
    hosts += [f"{LOOPBACK}:{ports.chosen[name]}" for name in parts if name in ports.chosen]
    return {**own, **given, **listening, "ALLOWED_PRIVATE_HOSTS": ",".join(hosts)}


def _backends(data_dir: Path, settings: Settings, ports: Mapping[str, int], shared: Mapping[str, str]) -> list[Part]:
    """Those of our stores and stand-ins that have got a port."""
    parts: list[Part] = []
    if port := ports.get("postgres"):
        parts.append(Postgres(data_dir / "postgres", port, environ=shared))
    if port := ports.get("s3"):
        keys = {"access_key": settings.s3_access_key, "secret_key": settings.s3_secret_key}
        # Nothing of the listings' bucket, which also has the originals: the gateway serves its public files.
        public = [f"{settings.s3_bucket_name}/{key}" for key in PUBLIC_KEYS]
        origin = next(iter(settings.origins), "")
        parts.append(S3(data_dir / "s3", port, **keys, origin=origin, environ=shared))
        parts.append(PublicObjects(data_dir / "s3", ports["s3-public"], public=public, environ=shared))
    if port := ports.get("mongo"):
        parts.append(Mongo(data_dir / "mongo", port, environ=shared))
    if port := ports.get("stand-ins"):
        parts.append(StandIns(data_dir / "stand-ins", port, environ=shared))
    return parts
