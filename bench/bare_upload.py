"""What the listings' upload is measured against: an endpoint that writes the bytes to S3 and says so.

As anybody would write it, with boto3; or, with CLIENT=obstore, by the client that the gateway itself has.
"""

from __future__ import annotations

import os
from typing import Annotated
from uuid import uuid4

import boto3
import uvicorn
from fastapi import FastAPI, File, Form, UploadFile

from imgpipe_orchestration.services import Services
from imgpipe_orchestration.settings import load

app = FastAPI()
settings = load()
bucket = Services(settings).listings_bucket
client = boto3.client(
    "s3",
    endpoint_url=settings.s3_endpoint,
    aws_access_key_id=settings.s3_access_key,
    aws_secret_access_key=settings.s3_secret_key,
    region_name=settings.s3_region,
)


def put(key: str, data: bytes) -> None:
    if os.environ.get("CLIENT") == "obstore":
        bucket.put(key, data, content_type="image/jpeg")
    else:
        client.put_object(Bucket=bucket.name, Key=key, Body=data, ContentType="image/jpeg")


@app.post("/api/upload/listing_image")
def upload(images: Annotated[list[UploadFile], File()], listing_title: Annotated[str, Form()] = "") -> dict[str, str]:
    for image in images:
        put(f"originals/{uuid4()}", image.file.read())
    return {"status": "success"}


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(os.environ["PORT"]), log_config=None, access_log=False)
