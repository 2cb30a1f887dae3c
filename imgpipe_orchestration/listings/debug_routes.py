"""Routes that show the queue and upload files from this machine; development only."""

from contextlib import suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

from fastapi import APIRouter
from pydantic import BaseModel, Field
from sqlalchemy import Row

from imgpipe_orchestration.errors import NotFound
from imgpipe_orchestration.listings import model, store, uploads
from imgpipe_orchestration.listings.runs import make_now
from imgpipe_orchestration.storage import job_definitions
from imgpipe_orchestration.storage.rows import transaction
from imgpipe_orchestration.web.auth import ServicesDep
from imgpipe_orchestration.wiring.services import Services

FOLDER = "debug-images"
"""The folder in IMGPIPE_DATA_DIR that test images are read from."""

router = APIRouter(prefix="/debug", tags=["debug"])


class TestUpload(BaseModel):
    """What to upload, as the document writes it."""

    listing_title: str = Field("", max_length=model.MOST_TITLE)
    image_path: str = Field(min_length=1, description=f"below IMGPIPE_DATA_DIR/{FOLDER}")
    process_now: bool = False


@router.get("/image-queue-status")
def image_queue_status(services: ServicesDep) -> dict[str, Any]:
    """How many images wait, and whether the job works on them."""
    with transaction(services.engine) as connection:
        job = job_definitions.find(connection, model.JOB_ID)
        counts = store.counts(connection)
    status = "active" if job is not None and job.enabled else "stopped"
    queue_status = {
        "initialized": job is not None,
        "status": status,
        "state": job_definitions.state(job) if job else status,
    }
    return {"pending_count": counts["pending"] + counts["retry"], "queue_status": queue_status}


@router.post("/upload-test-image")
def upload_test_image(services: ServicesDep, body: TestUpload) -> dict[str, Any]:
    """Queue a file of this machine, and with `process_now` process it before answering."""
    path = _found(services.settings.imgpipe_data_dir / FOLDER, body.image_path)
    size = path.stat().st_size
    data = path.read_bytes() if size <= services.settings.upload_max_bytes else b""
    answer = uploads.upload(services, body.listing_title, [uploads.Sent(path.name, lambda: data, size)])
    if body.process_now:
        image = answer["data"]["images"][0]
        make_now(services, f"debug-{uuid4()}", _row(services, image["file_name"]).id)
        image["status"] = answer["data"]["status"] = _row(services, image["file_name"]).status
    return answer


def _row(services: Services, file_name: str) -> Row[Any]:
    with transaction(services.engine) as connection:
        if image := store.served(connection, file_name):
            return image
    raise NotFound(f"There is no listing image {file_name!r}.")


def _found(folder: Path, image_path: str) -> Path:
    """The path of the file, with links and `..` resolved.

    Raises:
        NotFound: there is no such file below the folder.
    """
    root = folder.resolve()
    with suppress(OSError, RuntimeError, ValueError):  # too long, a circle of links, a NUL
        path = (root / image_path).resolve()
        if path.is_relative_to(root) and path.is_file():
            return path
    raise NotFound(f"There is no file {image_path!r} below IMGPIPE_DATA_DIR/{FOLDER}.")
