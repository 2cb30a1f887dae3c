"""Listings through the whole stack: upload, sensor, run, WebP; stopped and started over HTTP."""

import io
from typing import Any

import pytest
from PIL import Image

from imgpipe_orchestration.devstack import photos
from imgpipe_orchestration_tests.devstack.running import wait_for
from imgpipe_orchestration_tests.end_to_end.conftest import Stack

JOB = "/api/jobs/process-image-queue"


def upload(stack: Stack, *images: bytes) -> list[dict[str, Any]]:
    parts = [("images", (f"{number}.jpg", data, "image/jpeg")) for number, data in enumerate(images)]
    url = f"{stack.gateway}/api/upload/listing_image"
    answer = stack.session.post(url, files=parts, data={"listing_title": "Ünïcode bike"}, timeout=30)
    assert answer.status_code == 200, answer.text
    listed: list[dict[str, Any]] = answer.json()["data"]["images"]
    return listed


def is_webp(stack: Stack, url: str) -> bool:
    """Whether the WebP is there; until then the URL must serve some image, uncached."""
    answer = stack.session.get(url, timeout=30)
    assert answer.status_code == 200
    with Image.open(io.BytesIO(answer.content)) as image:
        image.load()
        finished = "etag" in answer.headers
        assert (image.format == "WEBP") == finished
        assert finished or answer.headers["cache-control"] == "no-store"
        assert not finished or image.height <= 640
    return finished


@pytest.mark.slow
def test_an_upload_becomes_webp_at_the_urls_of_its_answer(stack: Stack) -> None:
    images = upload(stack, photos.jpeg("coffee", width=1600), photos.jpeg("chelsea"))
    for image in images:
        wait_for(lambda url=image["url"]: is_webp(stack, url), "the WebP")
    assert stack.runs("process_image_queue")

    def job() -> dict[str, Any]:
        data: dict[str, Any] = stack.session.get(stack.gateway + JOB, timeout=30).json()["data"]
        return data

    wait_for(lambda: job()["last_result"], "the run that made them to end")
    assert job()["last_result"]["processed"] >= 1
    assert job()["last_run"]
    assert job()["next_run"]
