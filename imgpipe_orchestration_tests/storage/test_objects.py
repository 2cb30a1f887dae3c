"""The object store's vocabulary, over a real S3 protocol, and its faults in our own terms."""

from pathlib import Path

import pytest

from imgpipe_orchestration.devstack.ports import free_port
from imgpipe_orchestration.devstack.s3 import S3
from imgpipe_orchestration.errors import BackendUnavailable, BadInput, NotFound, OutOfSpace, SettingsError
from imgpipe_orchestration.storage.objects import Bucket, ObjectStore
from imgpipe_orchestration_tests.conftest import S3Access
from imgpipe_orchestration_tests.partners.wire import reply, serving
from imgpipe_orchestration_tests.parts import running


def store_at(endpoint: str, region: str = "us-east-1") -> ObjectStore:
    return ObjectStore(endpoint=endpoint, access_key="test-access", secret_key="test-secret", region=region)


@pytest.fixture
def bucket(s3: S3Access) -> Bucket:
    store = ObjectStore(endpoint=s3.endpoint, access_key=s3.access_key, secret_key=s3.secret_key)
    return store.bucket(s3.bucket())


def test_an_object_comes_back_with_its_type_and_caching(bucket: Bucket) -> None:
    bucket.put("a/ä b.webp", b"bytes", content_type="image/webp", cache_control="max-age=5", metadata={"item": "7"})
    data, head = bucket.get_with_head("a/ä b.webp")
    assert (data, head.size, head.content_type, head.metadata["item"]) == (b"bytes", 5, "image/webp", "7")
    assert bucket.head("a/ä b.webp") == head
    assert bucket.get("a/ä b.webp") == b"bytes"


def test_what_is_not_there_is_not_found(bucket: Bucket) -> None:
    with pytest.raises(NotFound):
        bucket.get("none")
    assert bucket.head("none") is None
    bucket.delete("none")


def test_a_listing_goes_through_all_pages_below_a_prefix(bucket: Bucket, s3_server: S3) -> None:
    keys = [f"a/{n:04}" for n in range(1005)]
    for key in [*keys, "b/1"]:
        file = s3_server.folder / bucket.name / key
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(b"")
    assert sorted(entry.key for entry in bucket.list("a/")) == keys
    assert [entry.key for entry in bucket.list("b/")] == ["b/1"]
    assert list(bucket.list("c/")) == []


@pytest.mark.parametrize("key", ["", "/a", "a//b", "../a", "a/../b", "a/.", "a/", "a\nb", "a\0b", "ä" * 600])
def test_a_key_that_could_mean_another_object_is_refused_and_never_found(bucket: Bucket, key: str) -> None:
    with pytest.raises(BadInput):
        bucket.put(key, b"x", content_type="text/plain")
    with pytest.raises(NotFound):
        bucket.get(key)
    assert bucket.head(key) is None
    bucket.delete(key)


def test_without_an_endpoint_the_setting_is_named() -> None:
    with pytest.raises(SettingsError, match="S3_ENDPOINT"):
        store_at("").bucket("b").get("k")


def test_a_store_that_goes_away_and_comes_back(tmp_path: Path) -> None:
    with running(S3(tmp_path / "buckets", free_port(), access_key="test-access", secret_key="test-secret")) as server:
        bucket = store_at(server.url).bucket("bucket")
        bucket.ensure()
        bucket.put("k", b"x", content_type="text/plain")
        server.kill()
        with pytest.raises(BackendUnavailable):
            bucket.get("k")
        server.start()
        server.wait_until_ready()
        assert bucket.get("k") == b"x"


def test_a_wrong_key_waits_for_an_operator(s3: S3Access) -> None:
    store = ObjectStore(endpoint=s3.endpoint, access_key="test-access", secret_key="wrong-secret")
    bucket = store.bucket(s3.bucket())
    with pytest.raises(BackendUnavailable, match="refused"):
        bucket.put("k", b"x", content_type="text/plain")
    with pytest.raises(BackendUnavailable, match=r"refused \(AccessDenied\)"):
        bucket.head("k")


def test_a_store_that_lets_nobody_delete_is_not_said_to_be_away() -> None:
    said = b"<DeleteResult><Error><Key>k</Key><Code>AccessDenied</Code><Message>no</Message></Error></DeleteResult>"
    with serving(lambda h, _: reply(h, said)) as server, pytest.raises(BackendUnavailable, match="refused"):
        store_at(server.url).bucket("b").delete("k")


def test_a_bucket_is_made_in_the_region_of_the_store() -> None:
    with serving(lambda h, _: reply(h, status=404 if h.command == "HEAD" else 200)) as server:
        for region in ("eu-central-1", "us-east-1"):
            store_at(server.url, region).bucket("b").ensure()
        bodies = [body for _, _, body in server.requests if body]
    assert len(bodies) == 1  # AWS refuses us-east-1 there
    assert b"<LocationConstraint>eu-central-1</LocationConstraint>" in bodies[0]


def test_a_store_that_is_full_is_named_as_such() -> None:
    said = b"<Error><Code>XMinioStorageFull</Code><Message>no</Message></Error>"
    with serving(lambda h, _: reply(h, said, 503)) as server, pytest.raises(OutOfSpace) as full:
        store_at(server.url).bucket("b").get("k")
    assert full.value.status == 507
