"""OpenAI's files and batches. A batch is done at the first look at it; each line is a request to this very server."""

import json
import time
from typing import Annotated, Any, Literal
from uuid import uuid4

import requests
from fastapi import APIRouter, Depends, Form, UploadFile
from fastapi.security import HTTPBearer
from pydantic import BaseModel
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from imgpipe_orchestration.devstack.standins import OPENAI
from imgpipe_orchestration.devstack.standins.openai_api import refusal

IN_BATCH = "X-Batch"
"""A header of the requests of a batch: its id."""


class NewBatch(BaseModel):
    """What a batch is to be made of."""

    input_file_id: str
    endpoint: Literal["/v1/responses", "/v1/embeddings", "/v1/images/generations", "/v1/images/edits"]
    completion_window: Literal["24h"]
    metadata: dict[str, str] | None = None


class Batches:
    """The files and batches of the account."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.batches: dict[str, dict[str, Any]] = {}
        self.router = APIRouter(prefix=OPENAI, dependencies=[Depends(HTTPBearer())])
        self.router.post("/files")(self.upload)
        self.router.get("/files/{name}/content")(self.content)
        self.router.post("/batches")(self.create)
        self.router.get("/batches")(self.listing)
        self.router.get("/batches/{name}")(self.retrieve)
        self.router.post("/batches/{name}/cancel")(self.cancel)

    async def upload(self, file: UploadFile, purpose: Annotated[Literal["batch"], Form()]) -> dict[str, Any]:
        name = self._keep(await file.read())
        about = {"id": name, "object": "file", "purpose": purpose, "filename": file.filename, "status": "processed"}
        return {**about, "bytes": len(self.files[name]), "created_at": int(time.time()), "standin": True}

    async def content(self, name: str) -> Response:
        return Response(_named(self.files, name), media_type="application/octet-stream")

    async def create(self, wanted: NewBatch) -> dict[str, Any]:
        _named(self.files, wanted.input_file_id)
        batch = {
            "id": f"batch_{uuid4().hex}",
            "object": "batch",
            "status": "in_progress",
            "created_at": int(time.time()),
            "output_file_id": None,
            "error_file_id": None,
            "errors": None,
            **wanted.model_dump(),
            "standin": True,
        }
        self.batches[batch["id"]] = batch
        return batch

    async def listing(self) -> dict[str, Any]:
        """All in one page, the newest first."""
        return {"object": "list", "data": list(reversed(self.batches.values())), "has_more": False}

    async def retrieve(self, name: str, request: Request) -> dict[str, Any]:
        """Does its work, unless that is done."""
        batch: dict[str, Any] = _named(self.batches, name)
        if batch["status"] == "in_progress":
            batch["status"] = "finalizing"  # for whoever looks meanwhile
            await self.work(request, batch)
        elif batch["status"] == "cancelling":
            batch["status"] = "cancelled"
        return batch

    async def cancel(self, name: str) -> dict[str, Any]:
        batch: dict[str, Any] = _named(self.batches, name)
        if batch["status"] != "in_progress":
            raise refusal(409, "conflict", f"Cannot cancel a batch with status '{batch['status']}'.")
        batch["status"] = "cancelling"
        return batch

    async def work(self, request: Request, batch: dict[str, Any]) -> None:
        """Answer every line, and end the batch."""
        self.finish(batch, [await self.answered(request, line) for line in self.lines(batch)], "completed")

    def lines(self, batch: dict[str, Any]) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.files[batch["input_file_id"]].splitlines()]

    async def answered(self, request: Request, line: dict[str, Any]) -> dict[str, Any]:
        """The line of the results for one of the requests."""
        headers = {"Authorization": request.headers.get("authorization", ""), IN_BATCH: line["custom_id"]}
        url = f"{request.base_url}openai{line['url']}"
        answer = await run_in_threadpool(requests.post, url, json=line["body"], headers=headers, timeout=60)
        told = {"status_code": answer.status_code, "request_id": uuid4().hex, "body": answer.json()}
        return {"id": f"batch_req_{uuid4().hex}", "custom_id": line["custom_id"], "response": told, "error": None}

    def finish(self, batch: dict[str, Any], answers: list[dict[str, Any]], status: str) -> None:
        """End the batch with these lines, of which those that are not good answers go into the error file."""
        good = [one for one in answers if one["response"] and one["response"]["status_code"] == 200]
        bad = [one for one in answers if one not in good]
        for name, found in (("output_file_id", good), ("error_file_id", bad)):
            if found:
                batch[name] = self._keep("".join(json.dumps(one) + "\n" for one in found).encode())
        batch["status"] = status

    def _keep(self, content: bytes) -> str:
        name = f"file-{uuid4().hex}"
        self.files[name] = content
        return name


def _named(among: dict[str, Any], name: str) -> Any:
    if name not in among:
        raise refusal(404, "not_found", "No such object")
    return among[name]
