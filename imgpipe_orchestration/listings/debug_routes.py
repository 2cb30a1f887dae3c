"""Routes that show the queue and upload files from this machine; development only."""

from pathlib import Path
from typing import Any
from uuid import uuid4

from fastapi import APIRouter
from pydantic import BaseModel, Field
from sqlalchemy import Row

from imgpipe_orchestration.errors import BadInput, Forbidden, NotFound
from imgpipe_orchestration.listings import model, store, uploads
from imgpipe_orchestration.listings.drain import make_now
from imgpipe_orchestration.services import Services
from imgpipe_orchestration.storage import job_definitions
from imgpipe_orchestration.storage.rows import transaction
from imgpipe_orchestration.web.auth import ServicesDep

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
        pending = store.waiting(connection)
    status = "active" if job is not None and job.enabled else "stopped"
    queue_status = {
        "initialized": job is not None,
        "status": status,
        "state": job_definitions.state(job) if job else status,
    }
    return {"pending_count": pending, "queue_status": queue_status}


@router.post("/upload-test-image")
def upload_test_image(services: ServicesDep, body: TestUpload) -> dict[str, Any]:
    """Queue a file of this machine, and with `process_now` process it before answering."""
    path = _allowed(services.settings.imgpipe_data_dir / FOLDER, body.image_path)
    size = path.stat().st_size
    data = path.read_bytes() if size <= services.settings.upload_max_bytes else b""
    answer = uploads.upload(services, body.listing_title, [uploads.Sent(path.name, lambda: data, size)])
    if body.process_now:
        image = answer["data"]["images"][0]
        image["status"] = answer["data"]["status"] = _processed_now(services, image["file_name"]).value
    return answer


def _processed_now(services: Services, file_name: str) -> model.Status:
    """Process the image now; returns its status afterwards."""

    def served() -> Row[Any]:
        with transaction(services.engine) as connection:
            image = store.served(connection, file_name)
        if image is None:
            raise NotFound(f"There is no listing image {file_name!r}.")
        return image

    make_now(services, f"debug-{uuid4()}", served().id)
    return model.Status(served().status)


def _allowed(folder: Path, image_path: str) -> Path:
    """The path of the file, with links and `..` resolved.

    Raises:
        Forbidden: the file lies outside of the folder.
        NotFound: there is no such file.
        BadInput: the path cannot be used.
    """
    root = folder.resolve()
    try:
        path = (root / image_path).resolve()
        there = path.is_file()
    except (OSError, RuntimeError, ValueError) as error:  # too long, a circle of links, a NUL
        raise BadInput(f"image_path cannot be used: {error}", field="image_path") from error
    if not path.is_relative_to(root):
        raise Forbidden(f"image_path must lie below IMGPIPE_DATA_DIR/{FOLDER}.")
    if not there:
        raise NotFound(f"There is no file {image_path!r}.")
    return path
