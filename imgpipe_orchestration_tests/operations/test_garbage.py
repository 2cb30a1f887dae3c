"""Objects without rows and rows without objects, found and mended in every bucket; nothing else is touched."""

import json
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner
from sqlalchemy import text

from imgpipe_orchestration import cli
from imgpipe_orchestration.cli import imgpipe
from imgpipe_orchestration.errors import NotFound
from imgpipe_orchestration.listings.store import QUEUE
from imgpipe_orchestration.media.store import REMAKE_VARIANTS
from imgpipe_orchestration.operations.tidying import collect_garbage
from imgpipe_orchestration.storage import holdings
from imgpipe_orchestration.storage.holdings import Holding, Promise, collect
from imgpipe_orchestration.storage.objects import Bucket
from imgpipe_orchestration.storage.rows import transaction
from imgpipe_orchestration.wiring.services import Services

VIEWED, REPORTED, UPLOADED = (f"0000000{n}-0000-4000-8000-000000000000" for n in (1, 2, 3))
VARIANT = "library/user_7/product/img/{id}-detail-0123456789ab.avif"
LOST = "library/user_7/product/img/{id}-small-0123456789ab.avif"


def put(bucket: Bucket, *keys: str) -> None:
    for key in keys:
        bucket.put(key, b"x" * 100, content_type="application/octet-stream")


def keys(bucket: Bucket) -> set[str]:
    return {one.key for one in bucket.list()}


@pytest.fixture
def medium(services: Services) -> int:
    """A finished image with its original and two variants, one of which is named and not stored."""
    with transaction(services.engine) as connection:
        found: int = connection.execute(
            text("""
                insert into media_files (main_api_id, user_id, data_type, kind, image_path, status, upload_day)
                values (1, 7, 'product', 'product', '/temp_images/products/a.jpg', 'completed', '2026-01-31')
                returning id
            """)
        ).scalar_one()
        connection.execute(
            text("update media_files set bulk_path = 'bulk/2026-01-31/' || id || '.jpg' where id = :id"), {"id": found}
        )
        for size, key in (("detail", VARIANT.format(id=found)), ("small", LOST.format(id=found))):
            connection.execute(
                text("""
                    insert into media_variants (media_id, size, format, background, width, height, bytes, sha256,
                        object_key, recipe) values (:id, :size, 'avif', 'original', 1, 1, 100, 'ab', :key, 'r')
                """),
                {"id": found, "size": size, "key": key},
            )
        for path, status in (("kept", "pending"), ("failed", "failed"), ("done", "complete")):
            connection.execute(
                text("insert into pending_images (user_id, image_path, status) values (7, :path, :status)"),
                {"path": f"/temp_images/products/{path}.jpg", "status": status},
            )
    return found


def test_media_loses_what_no_row_names_and_has_what_is_missing_made_again(services: Services, medium: int) -> None:
    bucket = services.media_bucket
    named = {
        VARIANT.format(id=medium),
        f"bulk/2026-01-31/{medium}.jpg",
        "temp_images/products/kept.jpg",
        "temp_images/products/failed.jpg",
        "library/not/ours",
        "elsewhere/thing",
    }
    garbage = {
        VARIANT.format(id=999),
        f"library/user_7/product/img/{medium}-detail-ffffffffffff.avif",
        "bulk/2026-01-31/999.jpg",
        "temp_images/products/done.jpg",
        "temp_images/products/nobodys.jpg",
    }
    put(bucket, *named, *garbage)

    (young,) = collect_garbage(services, ["media"], act=True, grace_hours=24)
    assert (young.garbage, young.young, young.deleted) == (0, 5, 0)

    (told,) = collect_garbage(services, ["media"], act=False, grace_hours=0)
    assert set(told.garbage_keys) == garbage
    assert (told.garbage_bytes, told.deleted, told.repaired) == (500, 0, 0)
    assert told.missing_keys == [LOST.format(id=medium)]
    assert keys(bucket) == named | garbage

    (done,) = collect_garbage(services, ["media"], act=True, grace_hours=0)
    assert (done.garbage, done.deleted, done.missing, done.lost, done.repaired) == (5, 5, 1, 0, 1)
    assert keys(bucket) == named
    assert services.claims.due_partitions(REMAKE_VARIANTS) == ["2026-01-31"]


def test_the_other_buckets_are_judged_by_their_own_rows(services: Services) -> None:
    with transaction(services.engine) as connection:
        connection.execute(
            text("""
                insert into image_queue (public_id, listing_title, file_name, status, max_retries, original_name,
                    original_key, content_type, bytes, width, height, webp_bytes)
                select gen_random_uuid(), t, t || '-' || n || '.webp', status, 3, t, 'originals/' || n, 'image/jpeg',
                    100, 1, 1, webp_bytes
                from (values ('a', 1, 'processed', 100), ('b', 2, 'pending', null), ('c', 3, 'processed', 9))
                    as image (t, n, status, webp_bytes)
            """)
        )
        task = connection.execute(
            text("""
                insert into generation_tasks (persona_count, brief, language, style, seed, status)
                values (1, 'b', 'en', 's', 1, 'completed') returning id
            """)
        ).scalar_one()
        person = connection.execute(
            text("""
                insert into generation_results (task_id, position, status, base_object)
                values (:task, 0, 'completed', 'avatars/lost.png') returning id
            """),
            {"task": task},
        ).scalar_one()
        connection.execute(
            text("""
                insert into vision_batches (batch_id, organization_id, user_query, model, status, report_key)
                values (cast(:id as uuid), 'o', 'q', 'm', :status, :key)
            """),
            [
                {"id": VIEWED, "status": "running", "key": None},
                {"id": REPORTED, "status": "completed", "key": f"reports/{REPORTED}.html"},
            ],
        )
        connection.execute(
            text("""
                insert into vision_uploads (image_id, organization_id, name, object_key, bytes, width, height, format)
                values (cast(:id as uuid), 'o', 'n', :key, 1, 1, 1, 'jpeg')
            """),
            {"id": UPLOADED, "key": f"images/{UPLOADED}.jpg"},
        )
    kept = {
        "listings": (
            services.listings_bucket,
            {"originals/1", "originals/2", "originals/3", "c-3.webp", "other/thing"},
        ),
        "avatars": (
            services.avatars_bucket,
            {f"avatars/task_{task}/manifest.json", f"avatars/task_{task}/persona_{person}/base.webp", "index.html"},
        ),
        "vision_reports": (
            services.vision_bucket,
            {f"views/{VIEWED}/1.jpg", f"reports/{REPORTED}.html", f"images/{UPLOADED}.jpg", "images/strange"},
        ),
    }
    lost = {
        "listings": {"originals/9", "gone-9.webp"},
        "avatars": {"avatars/task_99/manifest.json", f"avatars/task_{task}/persona_99/base.webp"},
        "vision_reports": {f"views/{REPORTED}/1.jpg", f"images/{VIEWED}.jpg", f"reports/{UPLOADED}.html"},
    }
    for name, (bucket, of_rows) in kept.items():
        put(bucket, *of_rows, *lost[name])

    found = {one.name: one for one in collect_garbage(services, act=True, grace_hours=0)}

    for name, (bucket, of_rows) in kept.items():
        assert keys(bucket) == of_rows, name
        assert found[name].deleted == len(lost[name]), name
    assert (found["listings"].missing_keys, found["listings"].repaired) == (["a-1.webp", "c-3.webp"], 2)
    assert services.claims.counts()[QUEUE.name].waiting == 2
    assert (found["avatars"].missing_keys, found["avatars"].lost) == (["avatars/lost.png"], 1)
    assert found["vision_reports"].missing == 0


def test_an_object_that_is_named_while_the_bucket_is_read_stays(services: Services) -> None:
    bucket = services.media_bucket
    put(bucket, "bulk/again", "bulk/garbage")

    def named(asked: Sequence[str]) -> list[str]:
        """Nothing, while all are asked about; one of them, right before it would be deleted."""
        return ["bulk/again"] if asked == ["bulk/again"] else []

    holding = Holding("x", bucket, ("bulk/",), named=named, promised=lambda *_: [])
    found = collect(holding, before=datetime.now(UTC) + timedelta(seconds=1), act=True)
    assert keys(bucket) == {"bulk/again"}
    assert (found.garbage, found.deleted) == (2, 1)


def test_nothing_is_deleted_where_most_is_garbage_unless_that_is_meant(
    services: Services, environment: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As by a database that is being restored, or that of another installation."""
    monkeypatch.setattr(holdings, "FEW", 3)
    listings, media, reports = services.listings_bucket, services.media_bucket, services.vision_bucket
    put(listings, "a-1.webp")
    put(reports, f"images/{UPLOADED}.jpg")
    stray = {f"bulk/2026-01-31/{number}.jpg" for number in range(901, 905)}
    put(media, *stray)
    (refused,) = collect_garbage(services, ["media"], act=True, grace_hours=0)
    assert refused.doubt.startswith("media: 4 of 4 objects are named by no row; nothing was deleted.")
    (told,) = collect_garbage(services, ["media"], act=False, grace_hours=0)
    assert (told.garbage, told.doubt, keys(media)) == (4, "", stray)

    ask = ["gc", "--data", str(tmp_path), "--grace-hours", "0", "--delete"]
    script = f"import {holdings.__name__} as g; g.FEW = 3; from {cli.__name__} import main; main()"
    command = [sys.executable, "-c", script, *ask]
    asked = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert (asked.returncode, asked.stderr.count("\n")) == (1, 1), asked.stderr
    assert "gc --delete --even-most" in asked.stderr
    assert keys(media) == stray
    assert keys(reports) == set(), "the bucket after it is tidied"
    meant = CliRunner().invoke(imgpipe, [*ask, "--even-most"])
    assert meant.exit_code == 0, meant.output
    assert keys(media) == set()


@pytest.mark.parametrize(
    ("stray", "rows", "doubted"),
    [(21, 0, True), (20, 0, False), (21, 1, False), (31, 1, True)],
    ids=["empty", "few", "one row", "many"],
)
def test_a_small_bucket_is_kept_where_the_database_is_empty(
    services: Services, monkeypatch: pytest.MonkeyPatch, stray: int, rows: int, doubted: bool
) -> None:
    monkeypatch.setattr(holdings, "MANY", 30)
    bucket = services.media_bucket
    put(bucket, *(f"bulk/{number}" for number in range(stray)))
    holding = Holding(
        "x", bucket, ("bulk/",), named=lambda _: [], promised=lambda after, limit: [Promise(1, "bulk/a")][after:rows]
    )
    before = datetime.now(UTC) + timedelta(seconds=1)
    if doubted:
        assert f"{stray} of {stray}" in collect(holding, before=before, act=True).doubt
        assert len(keys(bucket)) == stray
    else:
        assert collect(holding, before=before, act=True).deleted == stray


def test_the_command_tells_and_only_deletes_when_told_to(
    services: Services, environment: None, medium: int, tmp_path: Path
) -> None:
    put(services.media_bucket, "bulk/2026-01-31/999.jpg")
    assert isinstance(CliRunner().invoke(imgpipe, ["gc", "medai", "--data", str(tmp_path)]).exception, NotFound)
    refused = CliRunner().invoke(imgpipe, ["gc", "--data", str(tmp_path), "--grace-hours", "1000000"])
    assert refused.exit_code == 2, refused.output
    ask = ["gc", "media", "--data", str(tmp_path), "--grace-hours", "0"]
    told = CliRunner().invoke(imgpipe, ask)
    assert told.exit_code == 1  # something is missing
    assert "garbage bulk/2026-01-31/999.jpg" in told.output
    assert keys(services.media_bucket) == {"bulk/2026-01-31/999.jpg"}
    done = CliRunner().invoke(imgpipe, [*ask, "--delete", "--json"])
    (found,) = json.loads(done.output)
    assert (found["deleted"], found["rows"], found["missing"]) == (1, 3, 3)
    assert (found["lost"], found["repaired"], done.exit_code) == (3, 0, 1), "the original is gone, and all with it"
    assert keys(services.media_bucket) == set()

    put(services.media_bucket, f"bulk/2026-01-31/{medium}.jpg")
    mended = CliRunner().invoke(imgpipe, [*ask, "--delete"])
    assert "2 of them missing, 0 for good; those of 1 rows are made again" in mended.output
    assert mended.exit_code == 0
