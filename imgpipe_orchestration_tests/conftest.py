"""Real servers for the tests: one PostgreSQL, S3 and MongoDB a session, a fresh database and fresh buckets a test.

Each server starts when the first test asks for it. `settings` ties them together as the product's own settings.
"""

from __future__ import annotations

import functools
import itertools
import math
import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import hypothesis
import psycopg
import pytest
import requests
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from sqlalchemy import Engine

from imgpipe_orchestration.devstack import ports
from imgpipe_orchestration.devstack.mongo import Mongo
from imgpipe_orchestration.devstack.ports import free_port
from imgpipe_orchestration.devstack.postgres import Postgres
from imgpipe_orchestration.devstack.s3 import S3
from imgpipe_orchestration.partners import retry
from imgpipe_orchestration.settings import Settings
from imgpipe_orchestration.storage.migrations import upgrade
from imgpipe_orchestration.storage.rows import connect
from imgpipe_orchestration.telemetry.logs import TextFormatter
from imgpipe_orchestration.wiring.services import Services
from imgpipe_orchestration_tests.client import Client
from imgpipe_orchestration_tests.parts import QuickPostgres, ensure_database, running
from imgpipe_orchestration_tests.standins.server import FaultyStandIns, partners

if TYPE_CHECKING:
    from dagster import DagsterInstance

_numbers = itertools.count(1)


def pytest_configure() -> None:
    # An example may take long where all cores are busy; what a test allows is its timeout.
    hypothesis.settings.register_profile("untimed", hypothesis.settings.default, deadline=None)
    hypothesis.settings.load_profile("untimed")
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job ignores Ctrl-C, which some tests send
    # Each worker has ports of its own: none takes one that another has found free, before its server listens.
    first = 20_000 + int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % 6 * 2_000
    ports._NOT_EPHEMERAL = range(first, first + 2_000)


def pytest_sessionstart(session: pytest.Session) -> None:
    """The log of a failed test shows what an operator's shows: the causes are in the records' extras."""
    session.config.pluginmanager.get_plugin("logging-plugin").report_handler.setFormatter(TextFormatter())


_ONCE_A_MODULE = {"browser", "costs", "dagster_instance", "finished", "shop", "shown", "stack"}
"""Fixtures that take seconds to make, and serve a whole module."""


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The tests of a module that share such a fixture stay in one worker, or every worker would make it."""
    for item in items:
        grouped = item.get_closest_marker("xdist_group")  # of several groups pytest-xdist makes one of their own
        if not grouped and isinstance(item, pytest.Function) and _ONCE_A_MODULE.intersection(item.fixturenames):
            item.add_marker(pytest.mark.xdist_group(item.module.__name__))
    items.sort(key=_length, reverse=True)  # else one worker is busy with the longest while the others have finished


def _length(item: pytest.Item) -> float:
    """Seconds that it may take; those of `end_to_end` run one after the other, longer than any other."""
    group = item.get_closest_marker("xdist_group")
    if group and str(group.args[0]).startswith("stack"):
        return math.inf
    limit = item.get_closest_marker("timeout")
    return limit.args[0] if limit else 0.0


_MEMORY = Path("/dev/shm")
_PLENTY = 4 * 1024**3
"""Bytes. All stacks of a run of the suite together hold a tenth of it."""


@contextmanager
def open_folder() -> Iterator[Path]:
    """A temporary folder that another user may enter, in memory where there is plenty.

    As root, PostgreSQL runs as a user of its own; every start of pytest closes `tmp_path`'s parents to such a user. A
    database is a thousand files: to make one for a test took up to 0.3 s on a disk, without any fsync, and 0.01 s here.
    """
    in_memory = _MEMORY.is_dir() and shutil.disk_usage(_MEMORY).free >= _PLENTY
    folder = Path(tempfile.mkdtemp(prefix="imgpipe-test-", dir=_MEMORY if in_memory else None)).resolve()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(name="open_folder")
def open_folder_of_the_test() -> Iterator[Path]:
    """A folder for the data of a stack or of a PostgreSQL that the test starts itself."""
    with open_folder() as folder:
        yield folder


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[Postgres]:
    """A PostgreSQL of the session, holding `imgpipe_template`: the migrated schema that each test gets a copy of."""
    with open_folder() as folder, running(QuickPostgres(folder / "data", free_port())) as server:
        engine = connect(ensure_database(server, "imgpipe_template"))
        upgrade(engine)
        engine.dispose()
        yield server


@contextmanager
def fresh_database(server: Postgres) -> Iterator[str]:
    """URL of a fresh, migrated database, which takes 30 ms."""
    name = f"test_{next(_numbers)}"
    yield ensure_database(server, name, template="imgpipe_template")
    with psycopg.connect(server.url, autocommit=True) as connection:
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def postgres_url(postgres_server: Postgres) -> Iterator[str]:
    """URL of a database of the test's own."""
    with fresh_database(postgres_server) as url:
        yield url


@pytest.fixture
def engine(postgres_url: str) -> Iterator[Engine]:
    """Connections to that database."""
    engine = connect(postgres_url)
    yield engine
    engine.dispose()


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3]:
    folder = tmp_path_factory.mktemp("s3") / "buckets"
    with running(S3(folder, free_port(), access_key="test-access", secret_key="test-secret")) as server:
        yield server


@functools.cache
def _s3_client(endpoint: str, access_key: str, secret_key: str) -> Any:
    """One client an endpoint: making one costs 0.2 s."""
    import boto3
    from botocore.config import Config

    return boto3.client(
        "s3",
        endpoint_url=endpoint,
        aws_access_key_id=access_key,
        aws_secret_access_key=secret_key,
        region_name="us-east-1",
        config=Config(signature_version="s3v4", s3={"addressing_style": "path"}),
    )


@dataclass(frozen=True)
class S3Access:
    """What a client needs, and buckets nobody else uses."""

    server: S3
    endpoint: str
    access_key: str
    secret_key: str
    region: str = "us-east-1"

    def client(self) -> Any:
        """A boto3 client for looking at what the code under test stored."""
        return _s3_client(self.endpoint, self.access_key, self.secret_key)

    def bucket(self, prefix: str = "bucket") -> str:
        """The name of a new, empty bucket."""
        name = f"{prefix}-{uuid4().hex[:12]}"
        self.client().create_bucket(Bucket=name)
        return name


@pytest.fixture(scope="session")
def s3(s3_server: S3) -> S3Access:
    return S3Access(s3_server, s3_server.url, s3_server.access_key, s3_server.secret_key)


@pytest.fixture(scope="session")
def mongo_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mongo]:
    with running(Mongo(tmp_path_factory.mktemp("mongo") / "data", free_port())) as server:
        yield server


@pytest.fixture
def mongo_url(mongo_server: Mongo) -> str:
    """URL of a MongoDB database nobody else uses."""
    return f"{mongo_server.url}/test_{next(_numbers)}"


@pytest.fixture(scope="session")
def _standins_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FaultyStandIns]:
    with partners(tmp_path_factory.mktemp("standins")) as server:
        yield server


class StandInAccess:
    """The stand-in partners, and how a test steers them."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.openai_url = f"{url}/openai/v1"
        self.google_url = f"{url}/google-vision"
        self.flowise_url = f"{url}/flowise"
        self.analyses_url = f"{url}/vision-analysis/api/v1/documents/vision_analysis"

    @property
    def seeing(self) -> dict[str, str]:
        """Settings under which the providers that look at images are these."""
        return {
            "openai_api_key": "test-key",
            "openai_base_url": self.openai_url,
            "google_vision_api_key": "test-key",
            "google_vision_endpoint": self.google_url,
        }

    def admin(self, method: str, path: str, body: Any = None) -> Any:
        reply = requests.request(method, f"{self.url}/_standin/{path}", json=body, timeout=10)
        reply.raise_for_status()
        return reply.json() if reply.content else None

    def fault(self, provider: str, kind: str, **options: Any) -> None:
        """Seed a fault; options as in `standins.control.Fault`, `count=None` for every call."""
        self.admin("POST", "faults", {"provider": provider, "kind": kind, **options})

    def calls(self, provider: str, operation: str | None = None) -> list[dict[str, Any]]:
        """The journal, oldest call first."""
        query = f"provider={provider}" + (f"&operation={operation}" if operation else "")
        calls: list[dict[str, Any]] = self.admin("GET", f"calls?{query}")["calls"]
        return calls


@pytest.fixture
def standins(_standins_server: FaultyStandIns) -> StandInAccess:
    """The stand-in partners, with nothing seeded and an empty journal."""
    access = StandInAccess(_standins_server.url)
    access.admin("DELETE", "state")
    retry._gates.clear()  # a Retry-After of the test before must not hold this one back
    return access


@pytest.fixture
def settings(postgres_url: str, s3: S3Access, mongo_url: str, tmp_path: Path) -> Settings:
    """The product's settings for this test's own servers. No partner is set; `settings.model_copy(update=...)` does."""
    return settings_for(postgres_url, s3, mongo_url, tmp_path)


def settings_for(postgres_url: str, s3: S3Access, mongo_url: str, folder: Path) -> Settings:
    """`settings`, also for a fixture that several tests share."""
    return Settings(
        imgpipe_data_dir=folder,
        database_url=postgres_url,
        s3_endpoint=s3.endpoint,
        s3_access_key=s3.access_key,
        s3_secret_key=s3.secret_key,
        s3_region=s3.region,
        s3_bucket_name=s3.bucket("avatars"),
        media_bucket_name=s3.bucket("media"),
        listings_bucket_name=s3.bucket("listings"),
        vision_bucket_name=s3.bucket("vision"),
        mongodb_url=mongo_url,
    )


@pytest.fixture
def environment(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """What `imgpipe up` would put around Dagster, around this process."""
    for name, value in settings.environment().items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def services(settings: Settings) -> Iterator[Services]:
    """What the product builds from these settings."""
    with closing(Services(settings)) as services:
        yield services


@pytest.fixture
def client(settings: Settings) -> Iterator[Client]:
    """A client of a gateway in this process."""
    from imgpipe_orchestration.gateway.app import create_app

    with Client(create_app(settings)) as client:
        yield client


@pytest.fixture
def instance() -> Iterator[DagsterInstance]:
    """A Dagster of the test's own, in memory."""
    from dagster import DagsterInstance

    with DagsterInstance.ephemeral() as instance:
        yield instance


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for `localhost`, signed by itself, with its key in one PEM file."""
    key, name, now = ec.generate_private_key(ec.SECP256R1()), "localhost", datetime.now(UTC)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    signed = (
        x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    file = tmp_path_factory.mktemp("tls") / "localhost.pem"
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    file.write_bytes(pem + signed.public_bytes(Encoding.PEM))
    return file
