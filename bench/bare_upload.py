"""What the listings' upload is measured against: an endpoint that writes the bytes to S3 and says so."""

from __future__ import annotations

import os
from typing import Annotated
from uuid import uuid4

import uvicorn
from fastapi import FastAPI, File, Form, UploadFile

from imgpipe_orchestration.services import Services
from imgpipe_orchestration.settings import load

app = FastAPI()
services = Services(load())


@app.post("/api/upload/listing_image")
def upload(images: Annotated[list[UploadFile], File()], listing_title: Annotated[str, Form()] = "") -> dict[str, str]:
    for image in images:
        services.listings_bucket.put(f"originals/{uuid4()}", image.file.read(), content_type="image/jpeg")
    return {"status": "success"}


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(os.environ["PORT"]), log_config=None, access_log=False)
