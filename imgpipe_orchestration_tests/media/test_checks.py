"""The asset checks find the faults they are for, and nothing in a healthy store."""

from collections.abc import Callable
from dataclasses import replace

import dagster as dg
import pytest

from imgpipe_orchestration.media import assets, checks, store
from imgpipe_orchestration.resources import BackendsResource
from imgpipe_orchestration_tests.media.conftest import Gateway, picture


@pytest.fixture
def finished(gateway: Gateway) -> Gateway:
    """A gateway with a finished image."""
    gateway.finish(1, profile_image=picture())
    return gateway


def test_variants_and_originals_that_are_gone_are_found(finished: Gateway) -> None:
    assert checks.missing_objects(finished.services)[1] == []
    variant = finished.rows("select object_key from media_variants order by object_key limit 1")[0][0]
    original = finished.rows("select bulk_path from media_files where id = 1")[0][0]
    for key in (variant, original):
        finished.services.media_bucket.delete(key)
    assert set(checks.missing_objects(finished.services)[1]) == {variant, original}


def test_an_image_that_nobody_acknowledged_is_found_finished_at_once_and_else_after_an_hour(finished: Gateway) -> None:
    assert checks.unacknowledged(finished.services) == []
    for state in ("failed", "pending"):
        finished.rows("update processing_checklist set update_callback = :state", state=state)
        assert checks.unacknowledged(finished.services) == [1]
    finished.rows("update media_files set status = 'processing'")
    assert checks.unacknowledged(finished.services) == []
    finished.rows("alter table processing_checklist disable trigger touch")
    finished.rows("update processing_checklist set updated_at = now() - interval '61 minutes'")
    assert checks.unacknowledged(finished.services) == [1]


def test_a_failed_upload_that_was_set_back_to_pending_is_tried_again(
    make_gateway: Callable[..., Gateway], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "MEDIA", replace(store.MEDIA, max_attempts=1))
    gateway = make_gateway()
    path = gateway.upload(1, profile_image=picture()).json()["profile_image_path"]
    bucket = gateway.services.media_bucket
    bucket.delete(path.lstrip("/"))
    gateway.run_due()
    assert gateway.rows("select status from pending_images") == [("failed",)]
    assert checks.reopen(gateway.services) == 0
    bucket.put(path.lstrip("/"), picture(), content_type="image/jpeg", cache_control="no-store")
    gateway.rows("update pending_images set status = 'pending'")
    assert checks.reopen(gateway.services) == 1
    assert checks.reopen(gateway.services) == 0
    gateway.run_due("run-2")
    assert gateway.rows("select status from pending_images") == [("complete",)]


def test_a_finished_upload_that_was_set_back_to_pending_is_reported_again(finished: Gateway) -> None:
    gateway = finished
    made = gateway.rows("select object_key from media_variants order by 1")
    gateway.rows("update pending_images set status = 'pending', permanent_url = null")
    assert checks.reopen(gateway.services) == 1
    assert gateway.get("/serve/1").status_code == 200
    gateway.run_due("run-2")
    assert gateway.rows("select status, permanent_url from pending_images") == [("complete", "1")]
    assert gateway.rows("select status from media_files") == [("completed",)]
    assert gateway.rows("select object_key from media_variants order by 1") == made


def test_a_finished_image_without_a_size_makes_the_check_red_which_names_it(
    finished: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert checks.incomplete(finished.services) == []
    finished.rows("delete from media_variants where size = 'header'")
    for name, value in finished.settings.environment().items():
        monkeypatch.setenv(name, value)
    result = assets.finished_images_have_every_size(BackendsResource())
    assert isinstance(result, dg.AssetCheckResult)
    assert not result.passed
    assert result.metadata["which"].value == "1"
