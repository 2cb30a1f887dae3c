"""MongoDB access on every server: which database, whose time-outs, types, and what a server that is away is called."""

import re
from datetime import UTC, datetime

import pytest
from bson import Int64, ObjectId
from pymongo.errors import BulkWriteError, OperationFailure, WriteConcernError

from imgpipe_orchestration.devstack.mongo import Mongo
from imgpipe_orchestration.errors import BackendUnavailable, SettingsError
from imgpipe_orchestration.storage.documents import Documents, reachable
from imgpipe_orchestration_tests.devstack.running import wait_for
from imgpipe_orchestration_tests.mongo_servers import any_mongo, any_mongo_url, documents, faithful_server, own_mongo

__all__ = ["any_mongo", "any_mongo_url", "documents", "faithful_server", "own_mongo"]


@pytest.mark.parametrize(
    ("url", "name"), [("mongodb://127.0.0.1:1", "ichat"), ("mongodb://127.0.0.1:1/news?retryWrites=false", "news")]
)
def test_the_urls_database_wins_over_the_settings(url: str, name: str) -> None:
    documents = Documents(url, database="ichat")
    assert documents.database.name == name
    documents.close()


def test_writes_are_retried_and_waits_are_bounded_unless_the_url_says_otherwise() -> None:
    usual = Documents("mongodb://127.0.0.1:1", database="ichat")
    options = usual.client.options
    assert (options.retry_writes, options.retry_reads) == (True, True)
    assert options.server_selection_timeout == 5
    assert (options.pool_options.socket_timeout, options.pool_options.max_pool_size) == (30, 32)
    usual.close()
    told = Documents("mongodb://127.0.0.1:1/?maxPoolSize=3&serversELECTIONtimeoutMS=700", database="ichat")
    assert told.client.options.server_selection_timeout == 0.7
    assert told.client.options.pool_options.max_pool_size == 3
    told.close()


@pytest.mark.parametrize(
    "url", ["", "postgresql://x", "mongodb://", "mongodb://h:port", "mongodb://h/?tls=true&tlsCAFile=/no/such.pem"]
)
def test_a_url_that_cannot_be_used_names_its_setting(url: str) -> None:
    with pytest.raises(SettingsError) as raised:
        Documents(url, database="ichat").ping()
    assert raised.value.public.startswith("MONGODB_URL")


def test_types_come_back_as_they_went_in(documents: Documents) -> None:
    document = {
        "_id": ObjectId(),
        "long": Int64(2**60),
        "float": 0.1,
        "text": "ä😀$x.y",
        "true": True,
        "none": None,
        "when": datetime(2026, 1, 20, 10, 0, 0, 123000, tzinfo=UTC),
        "bytes": b"\x00\xff",
        "nested": {"list": [1, "2", {"deep": [None, False]}]},
    }
    documents.collection("kept").insert_one(document)
    assert documents.collection("kept").find_one({}) == document


def test_a_server_that_stops_is_unavailable_and_is_found_again(own_mongo: Mongo) -> None:
    documents = Documents(f"{own_mongo.url}/?serverSelectionTimeoutMS=300", database="ichat")
    documents.ping()
    own_mongo.kill()
    with pytest.raises(BackendUnavailable, match="accepted waits"), reachable():
        documents.collection("kept").insert_one({"n": 1})
    with pytest.raises(BackendUnavailable) as away:
        documents.ping()
    assert re.fullmatch(r"127\.0\.0\.1:\d+: \[Errno \d+\] Connection refused", str(away.value.detail))
    own_mongo.start()
    own_mongo.wait_until_ready()
    wait_for(lambda: _answers(documents), "the client to look for the server again", 30)
    documents.close()


@pytest.mark.parametrize(
    "error",
    [
        OperationFailure("no primary", 6),
        OperationFailure("not primary", 10107),
        WriteConcernError("waiting for replication", 64),
        WriteConcernError("Primary stepped down", 189),
        BulkWriteError({"writeErrors": [{"index": 0, "code": 112, "errmsg": "WriteConflict"}]}),
        BulkWriteError({"writeErrors": [], "writeConcernErrors": [{"code": 91, "errmsg": "Replication is shut down"}]}),
    ],
)
def test_a_replica_set_that_cannot_write_now_is_waited_for(error: OperationFailure) -> None:
    with pytest.raises(BackendUnavailable, match="accepted waits"), reachable():
        raise error
    with pytest.raises(OperationFailure), reachable():
        raise OperationFailure("no such command", 59)


def _answers(documents: Documents) -> bool:
    try:
        documents.ping()
    except BackendUnavailable:
        return False
    return True
