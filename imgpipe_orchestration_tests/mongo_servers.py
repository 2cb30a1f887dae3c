"""The servers that every query must be right on: the embedded one, one with MongoDB's types, and a real one if named.

The second is FerretDB over SQLite, built from `mongo_test_server/` by `make mongo-test-server` (needs `go`). Where it
was not built its tests are skipped, except on CI (CI=true), where that is a failure. The third is what
MONGODB_TEST_URL names.
"""

import itertools
import os
from collections.abc import Iterator
from pathlib import Path

import pymongo
import pytest

from imgpipe_orchestration.devstack.mongo import Mongo
from imgpipe_orchestration.devstack.ports import LOOPBACK, free_port
from imgpipe_orchestration.devstack.process import Part
from imgpipe_orchestration.storage.documents import Documents
from imgpipe_orchestration_tests.lacking import lacking
from imgpipe_orchestration_tests.parts import running

BINARY = Path(os.environ.get("MONGO_TEST_SERVER") or Path.home() / ".cache/imgpipe/mongo-test-server")

EMBEDDED, FAITHFUL, GIVEN = "embedded", "faithful", "given"

_numbers = itertools.count(1)


class FaithfulMongo(Part):
    """FerretDB over SQLite: MongoDB's wire protocol and MongoDB's types."""

    name = "mongo-test-server"

    @property
    def url(self) -> str:
        return f"mongodb://{LOOPBACK}:{self.port}"

    def command(self) -> list[str]:
        return [str(BINARY), f"{LOOPBACK}:{self.port}", str(self.folder)]


@pytest.fixture(scope="session")
def faithful_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FaithfulMongo]:
    if not BINARY.is_file():
        lacking("the second MongoDB server", "make mongo-test-server (needs go)")
    with running(FaithfulMongo(tmp_path_factory.mktemp("ferret") / "data", free_port())) as server:
        yield server


@pytest.fixture(params=[EMBEDDED, FAITHFUL, *([GIVEN] if os.environ.get("MONGODB_TEST_URL") else [])])
def any_mongo(request: pytest.FixtureRequest) -> str:
    """Which server: the name of one of the three. Tests that know a server's weakness ask it."""
    return str(request.param)


@pytest.fixture
def any_mongo_url(request: pytest.FixtureRequest, any_mongo: str) -> Iterator[str]:
    """URL of a database nobody else uses, on each of the servers in turn."""
    name = f"imgpipe_test_{os.getpid()}_{next(_numbers)}"
    if any_mongo == GIVEN:
        given = os.environ["MONGODB_TEST_URL"]
        base, _, options = given.partition("?")
        yield f"{base.rstrip('/')}/{name}" + (f"?{options}" if options else "")
        with pymongo.MongoClient[dict[str, object]](given) as client:
            client.drop_database(name)
        return
    server: Mongo | FaithfulMongo = request.getfixturevalue(
        "mongo_server" if any_mongo == EMBEDDED else "faithful_server"
    )
    yield f"{server.url}/{name}"


@pytest.fixture
def own_mongo(tmp_path: Path) -> Iterator[Mongo]:
    """An embedded one that the test may stop."""
    with running(Mongo(tmp_path / "own-mongo", free_port())) as server:
        yield server


@pytest.fixture
def documents(any_mongo_url: str) -> Iterator[Documents]:
    documents = Documents(any_mongo_url, database="ichat")
    yield documents
    documents.close()


def ferretdb(documents: Documents) -> bool:
    """Whether the server is FerretDB: ours, or the one that MONGODB_TEST_URL names."""
    return "ferretdbVersion" in documents.client.admin.command("buildInfo")
