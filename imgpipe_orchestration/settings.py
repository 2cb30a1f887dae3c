"""Every environment variable: its type, its default, its meaning.

Order of precedence: the environment, then what a running `imgpipe up` wrote into its data folder, then the default.
`docs/settings.md` is generated from this file, and a test keeps the two equal.
"""

import json
import os
import re
from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, BeforeValidator, Field, TypeAdapter, ValidationError, model_validator

from imgpipe_orchestration.errors import SettingsError
from imgpipe_orchestration.telemetry.redaction import SECRET_NAME, cleaned

STACK_FILE = "stack.json"
"""What a running `imgpipe up` writes into its data folder: the URLs, ports and development keys in force."""
DEVELOPMENT_SECRET = "development-only-secret-do-not-use-in-production"  # noqa: S105 - refused in production below
LEAST_SECRET = 8
"""Least characters of a secret in production. Not enough for a good one; it refuses `x`, `test` and the like."""
CENTURY_DAYS = 36_525
"""Most days that anything is kept: no clock or calendar counts without end."""

_NEEDED_SECRETS = ("media_api_key", "main_api_key", "admin_api_key", "user_jwt_secret", "secret_key")
_FURTHER_SECRETS = ("metrics_api_key", "backend_api_key")
"""Settings without which nothing starts in production, and secrets that may be empty."""

_DERIVED = {
    "pending_images_database_url": ("database_url", ""),
    "s3_public_endpoint": ("s3_endpoint", ""),
    "s3_upload_endpoint": ("s3_endpoint", ""),
    "main_api_url": ("gateway_url", ""),
    "public_base_url": ("gateway_url", ""),
    "media_backend_url": ("public_base_url", ""),
    "backend_api_url": ("gateway_url", ""),
    "smart_media_base_url": ("public_base_url", "/api/images"),
    "listings_public_url": ("public_base_url", "/storage/v1/object/public/listing-images"),
}
"""Settings whose default is another setting, or a path below it. The other one comes first where it is derived too."""


def _address(example: str, begins: str = "") -> AfterValidator:
    """A URL, or nothing. A database or a broker may have several hosts, or a socket."""

    def check(value: str) -> str:
        try:
            parts = urlsplit(value)
            one_host = {",", ";"}.isdisjoint(parts.netloc) and (parts.port or True)
            # Refuses the placeholder `https://...` of our examples.
            named = not one_host or parts.scheme not in {"http", "https"} or (parts.hostname or "").strip(".")
        except ValueError:
            named = ""
        if value and not (named and parts.scheme and "://" in value and value.startswith(begins)):
            raise ValueError(f"is not an address such as {example}")
        return value

    return AfterValidator(check)


def _json(shape: Any, words: str) -> AfterValidator:
    """JSON of a shape, which `words` describe, or nothing."""
    adapter = TypeAdapter(shape)

    def check(written: str) -> str:
        try:
            adapter.validate_json(written or "{}")
        except ValidationError:
            raise ValueError(f"must be a JSON object whose values are {words}") from None
        return written

    return AfterValidator(check)


def _listed(written: str) -> list[str]:
    return [part.strip() for part in written.split(",") if part.strip()]


def _origins(written: str) -> str:
    for origin in _listed(written.lower()):
        if not re.fullmatch(r"https?://[a-z0-9.-]+(:\d+)?", origin):
            raise ValueError("must be origins such as https://shop.example.com")
    return written


def _begun(day: str) -> str:
    if (found := date.fromisoformat(day)) > datetime.now(UTC).date() + timedelta(days=1):  # another machine's clock
        raise ValueError("is still to come")
    return str(found)


Url = Annotated[str, _address("https://host:8000")]
BaseUrl = Annotated[Url, AfterValidator(lambda url: url.rstrip("/"))]
"""A URL without trailing slash, to which paths are appended."""
_Postgres = Annotated[str, _address("postgresql://user@host/name", "postgres")]
_Database = Annotated[str, _address("postgresql://user@host/name")]
_Mongo = Annotated[str, _address("mongodb://user@host:27017/name")]
_Day = Annotated[str, Field(pattern=r"^\d{4}-\d{2}-\d{2}$"), AfterValidator(_begun)]
_Days = Annotated[float, Field(ge=0, le=CENTURY_DAYS)]
_Roles = Annotated[str, _json(dict[str, Literal["viewer", "operator", "admin"]], "viewer, operator or admin")]
_Level = Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"]
_Origins = Annotated[str, AfterValidator(_origins)]
_Share = Annotated[float, Field(ge=0, le=1)]
_Thresholds = Annotated[str, _json(dict[str, _Share | None], "from 0 to 1, or null")]


class Settings(BaseModel, extra="forbid", frozen=True, allow_inf_nan=False):
    """The settings in force. Field names in upper case are the environment variables."""

    # --- the stack ---------------------------------------------------------------------------------------------
    imgpipe_env: Literal["development", "production"] = Field(
        "development", description="`production` refuses default keys, and has no debug routes."
    )
    imgpipe_data_dir: Path = Field(Path(".imgpipe"), description="Where `imgpipe up` keeps its data.")
    gateway_host: Literal["", "127.0.0.1", "0.0.0.0", "::"] = Field(  # noqa: S104
        "", description="Address to listen on. Empty: loopback in development, all of IPv4 in production."
    )
    gateway_port: int = Field(8000, ge=0, le=65535, description="The gateway's port.")
    dagster_webserver_port: int = Field(3000, ge=0, le=65535, description="The Dagster UI's port.")
    flask_port: int = Field(8098, ge=0, le=65535, description="The gateway's second port, for the auto-marker's API.")
    gateway_url: BaseUrl = Field("http://127.0.0.1:8000", description="The gateway's internal URL.")
    dagster_url: BaseUrl = Field("http://127.0.0.1:3000", description="The Dagster UI's URL for people.")
    log_format: Literal["text", "json"] = Field("text", description="Format of log lines.")
    log_level: Annotated[_Level, BeforeValidator(str.upper)] = Field("INFO", description="Lowest level that is logged.")
    log_file: str = Field("", description="File to log to, beside standard error. Empty: none.")

    # --- rows, objects, documents ------------------------------------------------------------------------------
    database_url: _Postgres = Field("", description="Our PostgreSQL. Empty: `imgpipe up` starts one.")
    pending_images_database_url: _Database = Field("", description="Database of `pending_images`. Empty: DATABASE_URL.")
    dagster_pg_url: _Postgres = Field("", description="Dagster's PostgreSQL. Empty: schema `dagster` of DATABASE_URL.")
    s3_endpoint: BaseUrl = Field("", description="S3 endpoint. Empty: `imgpipe up` starts one.")
    s3_public_endpoint: BaseUrl = Field("", description="Base of public object URLs. Empty: S3_ENDPOINT.")
    s3_access_key: str = Field("", description="S3 access key.")
    s3_secret_key: str = Field("", description="S3 secret key.")
    s3_region: str = Field("us-east-1", description="S3 region.")
    s3_bucket_name: str = Field("avatar-images", description="Bucket for avatars.")
    media_bucket_name: str = Field("media", description="Bucket for uploads, originals and variants.")
    listings_bucket_name: str = Field("listing-images", description="Bucket for listings.")
    mongodb_url: _Mongo = Field("", description="MongoDB with the news documents. Empty: `imgpipe up` starts one.")
    mongodb_database: str = Field("ichat", description="Database, if MONGODB_URL names none.")
    lease_seconds: float = Field(60, gt=0, description="How long a claim lasts without a heartbeat.")

    # --- several machines --------------------------------------------------------------------------------------
    celery_broker_url: Url = Field("", description="Broker for workers: redis://, rediss://, amqp:// or amqps://.")
    runs_per_pipeline: int = Field(1, ge=1, description="Runs of one pipeline at a time, for several machines.")

    # --- retention ---------------------------------------------------------------------------------------------
    retention_days: _Days = Field(30, gt=0, description="Days to keep finished items, attempts, and Dagster's runs.")
    trash_days: _Days = Field(30, description="Days until deleted things are purged. 0: at once.")
    replaced_days: _Days | Literal["keep"] = Field(
        30.0, description="Days until a replaced profile image goes into the trash. `keep`: never."
    )
    listings_keep_days: _Days = Field(0, description="Days after which listings' images are purged. 0: never.")
    avatars_keep_days: _Days = Field(0, description="Days after which a finished avatar task is purged. 0: never.")
    vision_keep_days: _Days = Field(0, description="Days after which pictures and reports are purged. 0: never.")
    cdn_purge: Literal["none", "cloudflare", "fastly", "webhook"] = Field("none", description="CDN to tell of changes.")
    cdn_purge_url: Url = Field(
        "", description="Where: Cloudflare's `.../zones/ID/purge_cache`, Fastly's `.../service/ID/purge`, or a webhook."
    )
    cdn_purge_token: str = Field("", description="The CDN's API token.")

    # --- watching ----------------------------------------------------------------------------------------------
    metrics_api_key: str = Field("", description="Key for GET /metrics in production. Empty: keys with a role only.")
    alert_webhook_url: Url = Field("", description="Webhook for alerts, in Slack's format. Empty: none.")

    # --- identity and secrets ----------------------------------------------------------------------------------
    media_api_key: str = Field(DEVELOPMENT_SECRET, description="Bearer key of media workers.")
    main_api_key: str = Field(DEVELOPMENT_SECRET, description="Bearer and signing key for calls to the main API.")
    admin_api_key: str = Field(DEVELOPMENT_SECRET, description="Admin key: pages, jobs, avatars, cron jobs.")
    user_jwt_secret: str = Field(DEVELOPMENT_SECRET, description="HS256 secret of users' tokens; `sub` is the user id.")
    user_jwt_needs_exp: bool = Field(True, description="Refuse users' tokens that never expire (without `exp`).")
    session_hours: float = Field(12, gt=0, le=720, description="Hours until a session of the pages ends.")
    audit_days: int = Field(400, ge=31, le=CENTURY_DAYS, description="How long the audit is kept, in whole months.")
    oidc_issuer: BaseUrl = Field("", description="OpenID Connect provider. Empty: people sign in with ADMIN_API_KEY.")
    oidc_client_id: str = Field("", description="Our client id at OIDC_ISSUER.")
    oidc_client_secret: str = Field("", description="Our client secret at OIDC_ISSUER. Empty: a public client.")
    oidc_roles: _Roles = Field(
        "", description='Roles by group or e-mail address: `{"image-ops": "operator", "eve@example.com": "admin"}`.'
    )
    oidc_groups_claim: str = Field("groups", description="Claim of the ID token that lists a person's groups.")
    secret_key: str = Field(DEVELOPMENT_SECRET, description="Encrypts stored tokens; signs sessions and URLs.")
    allowed_private_hosts: str = Field("", description="Private hosts, host:ports or CIDRs that downloads may reach.")
    frontend_origins: _Origins = Field(
        "", description="Origins (https://shop.example.com) whose pages may call us, comma-separated."
    )

    # --- partners ----------------------------------------------------------------------------------------------
    main_api_url: BaseUrl = Field("", description="Main API: gets callbacks, serves temp files. Empty: GATEWAY_URL.")
    models_file: str = Field("", description="TOML file of providers and tasks (docs/ai.md). Empty: the names below.")
    prompts_dir: str = Field("", description="Folder of prompts that replace our own (docs/ai.md).")
    brand_context: str = Field("", description="What the company is, for prompts: `a museum of design`.")
    evaluation_least: _Share = Field(0.9, description="Least share of right fields in `model_evaluation`.")
    openai_api_key: str = Field("", description="OpenAI key. Empty: a stand-in under `imgpipe up`, otherwise off.")
    openai_base_url: BaseUrl = Field("https://api.openai.com/v1", description="OpenAI base URL.")
    openai_vision_model: str = Field("gpt-6-luna", description="Model that analyses images.")
    openai_embedding_model: str = Field("text-embedding-3-small", description="Embedding model for search.")
    openai_image_model: str = Field("gpt-image-2.5-flare", description="Model that draws avatars.")
    google_vision_api_key: str = Field("", description="Google Vision key. Empty: like OPENAI_API_KEY.")
    google_vision_endpoint: BaseUrl = Field("https://vision.googleapis.com", description="Google Vision base URL.")
    flowise_base_url: BaseUrl = Field("", description="Flowise base URL. Empty: like OPENAI_API_KEY.")
    flowise_api_key: str = Field("", description="Flowise bearer key, if needed.")
    flowise_persona_flow_id: str = Field("persona-data", description="Flow for personas.")
    flowise_prompt_flow_id: str = Field("image-prompt", description="Flow for image prompts.")
    partner_timeout_seconds: float = Field(60, gt=0, description="Time limit for one outside call.")
    daily_budget_usd: float = Field(0, ge=0, description="Daily limit for paid calls. 0: none.")
    spending_pause_seconds: float = Field(
        300, gt=0, description="Pause when quota or budget is spent, or a key refused."
    )
    model_prices: str = Field(
        "", description='Prices to add or correct: `{"gpt-6-luna": {"input": 0.1, "output": 0.5}}`.'
    )

    # --- moderation --------------------------------------------------------------------------------------------
    moderation: Literal["off", "flag", "hold"] = Field("flag", description="What happens to doubtful images.")
    moderation_provider: Literal["", "openai", "google", "none"] = Field(
        "", description="Provider that judges. Empty: one that has a key."
    )
    moderation_thresholds: _Thresholds = Field(
        "",
        description="Doubtful from these scores, by category: "
        '`{"sexual": 0.3, "racy": null}`. Null: never. '
        "Unnamed: 0.75 for adult, racy, violence; 0.2 for sexual/minors; else 0.5.",
    )
    reports_to_hold: int = Field(3, ge=1, description="Reports after which an image is held back.")
    review_hours: float = Field(24, gt=0, le=1e6, description="Age in the review list that raises an alert.")

    # --- media -------------------------------------------------------------------------------------------------
    public_base_url: BaseUrl = Field("", description="Base of URLs for clients. Empty: GATEWAY_URL.")
    media_backend_url: BaseUrl = Field("", description="Base of `permanent_url` in callbacks. Empty: PUBLIC_BASE_URL.")
    smart_media_base_url: BaseUrl = Field("", description="Base of smart URLs. Empty: PUBLIC_BASE_URL/api/images.")
    upload_max_bytes: int = Field(5 * 2**20, ge=1, le=2**26, description="Largest upload; at most 64 MiB.")
    image_max_megapixels: float = Field(100, gt=0, le=1000, description="Most megapixels of one image.")
    media_first_day: _Day = Field(
        "2020-01-01",
        description="First partition of media, listings, avatars. `imgpipe up` sets the day before the oldest upload.",
    )
    signed_url_keys: str = Field(
        "", description="Keys for signed URLs, by commas; the first signs. Empty: made of SECRET_KEY."
    )
    s3_upload_endpoint: BaseUrl = Field("", description="S3 as clients reach it. Empty: S3_ENDPOINT.")

    # --- listings ----------------------------------------------------------------------------------------------
    listings_public_url: BaseUrl = Field(
        "", description="Base of listings' URLs. Empty: PUBLIC_BASE_URL/storage/v1/object/public/listing-images."
    )

    # --- vision reports ----------------------------------------------------------------------------------------
    external_api_get_url: Url = Field("", description="Lists analyses, for `imgpipe vision-reports run`.")
    external_api_post_url: Url = Field("", description="Takes reports, for the same command.")
    external_api_key: str = Field("", description="Bearer token for both.")
    organization_id: str = Field("", description="Organization whose analyses that command takes.")
    backend_api_url: BaseUrl = Field("", description="Analysis backend. Empty: GATEWAY_URL, our own.")
    backend_api_key: str = Field("", description="Bearer key for BACKEND_API_URL; ours accepts it too.")
    vision_bucket_name: str = Field("vision-reports", description="Bucket for submitted images and reports.")
    vision_page_size: int = Field(50, ge=1, le=1000, description="Page size when listing analyses.")

    # --- auto-marker -------------------------------------------------------------------------------------------
    job_interval_minutes: float = Field(5, gt=0, description="Minutes between rounds.")
    auto_mark_batch_size: int = Field(50, ge=1, description="Most documents per customer and run.")

    # --- avatars -----------------------------------------------------------------------------------------------
    worker_interval: float = Field(30, gt=0, description="Least seconds between two runs of the same kind.")
    multithread_flowise: int = Field(5, ge=1, description="Parallel Flowise requests.")

    @model_validator(mode="after")
    def _refuse_without_secrets(self) -> Self:
        if not self.production:
            return self
        # An environment file may pad its lines.
        keys = {name: [getattr(self, name).strip()] for name in (*_NEEDED_SECRETS, *_FURTHER_SECRETS)}
        missing = [name for name in _NEEDED_SECRETS if name not in self.model_fields_set or keys[name] == [""]]
        keys["signed_url_keys"] = self.url_keys
        default = [name for name, ones in keys.items() if DEVELOPMENT_SECRET in ones and name not in missing]
        short = [name for name, ones in keys.items() if any(0 < len(one) < LEAST_SECRET for one in ones)]
        missing += [name for name in ("database_url", "s3_endpoint") if not getattr(self, name)]
        is_one = "is" if len(default) == 1 else "are"
        faults = {
            "must be set in production": missing,
            f"{is_one} the development key, which everybody knows: set your own (`openssl rand -hex 32`)": default,
            "too short to be a secret; `openssl rand -hex 32` makes one": short,
        }
        problems = [f"{', '.join(names).upper()} {what}" for what, names in faults.items() if names]
        if problems:
            raise SettingsError("; ".join(problems))
        return self

    @model_validator(mode="before")
    @classmethod
    def _derive(cls, values: dict[str, Any]) -> dict[str, Any]:
        """Fill the settings that follow from others."""
        values = dict(values)
        values["dagster_pg_url"] = _dagster_url(values.get("dagster_pg_url"), values.get("database_url"))
        for name, (source, path) in _DERIVED.items():
            base = values.get(source) or cls.model_fields[source].default
            values[name] = values.get(name) or (base.rstrip("/") + path if path else base)
        return values

    @property
    def production(self) -> bool:
        return self.imgpipe_env == "production"

    @property
    def buckets(self) -> tuple[str, ...]:
        return (self.media_bucket_name, self.listings_bucket_name, self.s3_bucket_name, self.vision_bucket_name)

    @property
    def origins(self) -> list[str]:
        """The origins of FRONTEND_ORIGINS, in lower case as browsers send them."""
        return _listed(self.frontend_origins.lower())

    @property
    def url_keys(self) -> list[str]:
        """The keys of SIGNED_URL_KEYS; the first one signs."""
        return _listed(self.signed_url_keys)

    @property
    def digest_keys(self) -> list[str]:
        """SECRET_KEY, which makes the digests, and the former ones: SIGNED_URL_KEYS keeps them."""
        return [self.secret_key, *self.url_keys]

    def secrets(self) -> set[str]:
        """The keys and passwords in force, without the development key."""
        values = {name: str(value) for name, value in self.model_dump().items()}
        found = {value for name, value in values.items() if SECRET_NAME.fullmatch(name)}
        found |= {self.alert_webhook_url, self.signed_url_keys, *self.url_keys}
        found |= {password for value in values.values() if "@" in value and (password := urlsplit(value).password)}
        return found - {"", DEVELOPMENT_SECRET}

    def logging(self) -> dict[str, Any]:
        """LOG_FORMAT, LOG_LEVEL and LOG_FILE, as `telemetry.logs.configure` takes them."""
        return {"style": self.log_format, "level": self.log_level, "file": self.log_file}

    def environment(self) -> dict[str, str]:
        """The settings as environment variables, for child processes and `imgpipe env`."""
        return {name.upper(): str(value) for name, value in self.model_dump().items()}


def load(environ: Mapping[str, str] | None = None, *, data_dir: Path | None = None) -> Settings:
    """Read the settings in force, without white space around them: a secret from a file often ends in a line break,
    which no header may contain.

    Args:
        environ: the environment (default: the process's own).
        data_dir: data folder of the stack to look at; default IMGPIPE_DATA_DIR, then `.imgpipe`.

    Raises:
        SettingsError: naming the variables that cannot be used.
    """
    environ = os.environ if environ is None else environ
    folder = data_dir or Path(environ.get("IMGPIPE_DATA_DIR") or Settings.model_fields["imgpipe_data_dir"].default)
    values: dict[str, Any] = _running_stack(folder)
    values |= {name: value for name in Settings.model_fields if (value := environ.get(name.upper(), "").strip())}
    values["imgpipe_data_dir"] = folder
    try:
        return Settings(**values)
    except ValidationError as error:
        found = {str(one["loc"][0]): one for one in error.errors()}
        # One that follows from another is as wrong as that one.
        given = [name for name in found if values.get(name)] or list(found)[:1]
        said = []
        for name in (name.upper() for name in given):
            fault = found[name.lower()]
            words = fault["msg"].removeprefix("Value error, ")
            has_url = name.endswith(("_URL", "_ENDPOINT"))  # it may contain a password
            said.append(f"{name} {words}" if has_url else f"{name}: {words} (got {cleaned(fault['input'], name)!r})")
        raise SettingsError("; ".join(said)) from None


def _dagster_url(url: str | None, database_url: str | None) -> str:
    """The URL as dagster-postgres needs it: with psycopg2 as driver, because with psycopg 3, SQLAlchemy 2.1's default,
    it fails; and in our own database with a schema of its own, because both have a table `alembic_version`.
    """
    scheme, separator, rest = (url or database_url or "").partition("://")
    if not scheme.startswith("postgres"):
        return url or ""
    if not url:
        schema = "-csearch_path%3Ddagster"
        # Appended to existing options, because psycopg2 takes `options` once. PostgreSQL takes the last search path.
        rest, there = re.subn(r"([?&]options=[^&]*)", rf"\1%20{schema}", rest)
        rest += "" if there else f"{'&' if '?' in rest else '?'}options={schema}"
    return f"postgresql+psycopg2{separator}{rest}"


def _running_stack(folder: Path) -> dict[str, Any]:
    """What the stack in `folder` wrote, or nothing when none ever ran there."""
    try:
        written = json.loads((folder / STACK_FILE).read_text())["environment"]
    except (FileNotFoundError, NotADirectoryError, ValueError):  # after a power cut the file may be empty
        return {}
    return {name.lower(): value for name, value in written.items() if name.lower() in Settings.model_fields}


def first_day() -> str:
    """MEDIA_FIRST_DAY, for definitions of partitions, which are made before there are settings.

    Raises:
        SettingsError: it cannot be used. Dagster would say so without its name.
    """
    day = os.environ.get("MEDIA_FIRST_DAY", "").strip() or str(Settings.model_fields["media_first_day"].default)
    try:
        return _begun(day)
    except ValueError as error:
        raise SettingsError(f"MEDIA_FIRST_DAY: {error} (got {day!r})") from None
