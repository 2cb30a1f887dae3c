"""A person from their portrait to five pictures, at full and at half price, and within limits."""

import fnmatch
import json
import logging
from io import BytesIO

import pytest
from PIL import Image

from imgpipe_orchestration.avatars.lifecycle import PERSONAS, TASKS
from imgpipe_orchestration.avatars.model import PUBLIC_KEYS, PersonaStatus, TaskStatus
from imgpipe_orchestration.imaging.portraits.finishing import TRAINED
from imgpipe_orchestration.lifecycle.trash import delete
from imgpipe_orchestration.operations.deletion import due, run
from imgpipe_orchestration_tests.avatars.conftest import Desk, source_of
from imgpipe_orchestration_tests.conftest import S3Access


def test_people_are_invented_and_pictured_with_the_documents_states_keys_and_urls(
    desk: Desk, s3: S3Access, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    task = desk.ask(3, brief="bakers of Porto")
    assert task.status is TaskStatus.PENDING
    desk.data()
    assert desk.task(task).status is TaskStatus.DATA_GENERATED
    people = desk.people(task)
    assert len({p.name for p in people}) == 3
    desk.images()

    task = desk.task(task)
    assert (task.status, task.error_log) == (TaskStatus.COMPLETED, None)
    endpoint, bucket = desk.services.settings.s3_public_endpoint, desk.services.settings.s3_bucket_name
    for person in desk.people(task):
        prefix = f"avatars/task_{task.id}/persona_{person.id}"
        names = ["base", "image_0", "image_1", "image_2", "image_3"]
        urls = [person.base_image_url, *(getattr(person, f"image_{n}_url") for n in range(1, 5))]
        assert urls == [f"{endpoint}/{bucket}/{prefix}/{name}.png" for name in names]
        assert person.status is PersonaStatus.COMPLETED
        for name in names:
            data = desk.services.avatars_bucket.get(f"{prefix}/{name}.png")
            head = s3.client().head_object(Bucket=bucket, Key=f"{prefix}/{name}.png")
            with Image.open(BytesIO(data)) as image:
                assert image.format == "PNG"
                assert name == "base" or image.width == image.height
            assert source_of(data) == TRAINED
            assert head["ContentType"] == "image/png"
            assert "max-age=31536000" in head["CacheControl"]
        for kind in ("webp", "avif"):
            thumbnail = desk.services.avatars_bucket.get(f"{prefix}/image_2_thumb.{kind}")
            assert source_of(thumbnail) == TRAINED
            with Image.open(BytesIO(thumbnail)) as image:
                assert max(image.size) == 256

    manifest = json.loads(desk.services.avatars_bucket.get(f"avatars/task_{task.id}/manifest.json"))
    assert [p["status"] for p in manifest["personas"]] == ["completed"] * 3
    assert task.manifest_url == f"{endpoint}/{bucket}/avatars/task_{task.id}/manifest.json"
    kept = {stored.key for stored in desk.services.avatars_bucket.list()}
    public = {key for pattern in PUBLIC_KEYS for key in fnmatch.filter(kept, pattern)}
    assert {key.split("/")[3] for key in kept - public} == {"bought"}
    assert (len(kept - public), len(public)) == (6, 3 * 5 * 3 + 1)

    said = {record.getMessage() for record in caplog.records}
    person = people[0]
    assert f"[Task {task.task_id}] Processing images for persona: {person.name} (result_id={person.id})" in said
    for line in (
        "Step 1/7: Generating image prompt via Flowise...",
        "Step 2/7: Generating base selfie image...",
        "Step 3/7: Uploading base image to S3...",
        "Step 4/7: Generating 4-image grid...",
        "Step 5/7: Splitting and trimming grid image...",
        "Step 6/7: Uploading 4 split images to S3...",
        "Step 7/7: Updating database with image URLs...",
        "Image processing completed successfully!",
    ):
        assert f"[Task {task.task_id}] [{person.name}] {line}" in said


def test_pictures_that_are_not_urgent_cost_half(desk: Desk) -> None:
    direct = desk.made(1)
    desk.standins.admin("POST", "delays", {"openai.batch_work": 0.5})
    task = desk.made(1, urgent=False)
    assert "it may take a day" in (desk.task(task).waiting_for or "")
    desk.eventually(desk.images_now, lambda: desk.task(task).status is TaskStatus.COMPLETED)
    calls = [call for name in ("images", "edits") for call in desk.standins.calls("openai", name)]
    assert sorted("in_batch" in call["note"] for call in calls) == [False, False, True, True]
    query = "select half_price, sum(cost_usd) from paid_call_uses where provider = 'openai' group by 1 order by 1"
    full, half = (row.sum for row in desk.sql(query))
    assert 0.48 < half / full < 0.52
    assert desk.cost(task) < desk.cost(direct)


def test_a_batch_of_the_model_before_does_not_stand_in_for_the_answer_of_the_new_one(desk: Desk) -> None:
    desk.standins.admin("POST", "delays", {"openai.batch_work": 0.5})
    task = desk.made(1, urgent=False)
    desk.change(openai_image_model="gpt-image-2")
    del desk.services.models
    desk.eventually(desk.images_now, lambda: desk.task(task).status is TaskStatus.COMPLETED)
    bought = desk.sql("select model, answered_by, object_key from paid_calls where operation = 'images' order by model")
    assert [row.answered_by for row in bought] == ["gpt-image-2-standin", "gpt-image-2.5-flare-standin"]
    assert desk.people(task)[0].base_object == bought[0].object_key != bought[1].object_key
    assert not list((desk.services.settings.imgpipe_data_dir / "avatars-bought").iterdir())


@pytest.mark.parametrize("how", ["cancelled", "task deleted", "people deleted"])
def test_what_is_cancelled_or_deleted_has_its_batches_cancelled(desk: Desk, how: str) -> None:
    desk.standins.admin("POST", "delays", {"openai.batch_work": 600})
    task = desk.made(2, urgent=False)
    assert not due(desk.services)
    if how == "cancelled":
        desk.cancel(desk.task(task))
    elif how == "task deleted":
        delete(desk.services, TASKS, f"task_{task.id}", [task.id], user=None, who="a test", purge=True)
    else:
        for person in desk.people(task):
            name = f"task_{task.id}/persona_{person.id}"
            delete(desk.services, PERSONAS, name, [person.id], user=None, who="a test", purge=True)
    assert due(desk.services)
    run(desk.services, "purge-1")
    assert len(desk.standins.calls("openai", "batch_cancel")) == 2
    left = "select (select count(*) from ai_batches) + count(*) from paid_calls where bought_for is not null"
    assert desk.sql(left)[0][0] == 0


def test_people_on_their_way_keep_within_the_limits_of_each_provider(desk: Desk) -> None:
    desk.standins.admin("POST", "delays", {"openai": 2, "flowise": 0.5})
    desk.made(9)
    busiest = desk.standins.admin("GET", "calls")["most_in_flight"]
    assert busiest["openai"] == 4, "one place is always for other tasks"
    assert 2 <= busiest["flowise"] <= 5
