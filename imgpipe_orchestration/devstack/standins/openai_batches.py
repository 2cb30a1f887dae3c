"""OpenAI's files and batches. A batch is done at the first look at it; each line is a request to this very server."""

import json
import time
from typing import Any
from uuid import uuid4

import requests
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import UploadFile
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from imgpipe_orchestration.devstack.standins.openai_api import authorise, authorised_json, refusal

IN_BATCH = "X-Batch"
"""A header of the requests of a batch: its id."""
_ENDPOINTS = ("/v1/responses", "/v1/embeddings", "/v1/images/generations", "/v1/images/edits")


class Batches:
    """The files and batches of the account."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.batches: dict[str, dict[str, Any]] = {}

    async def upload(self, request: Request) -> Response:
        """POST /files."""
        authorise(request)
        async with request.form(max_part_size=256 * 1024 * 1024) as form:
            file = form.get("file")
            if form.get("purpose") != "batch" or not isinstance(file, UploadFile):
                raise refusal(400, "invalid_request", "file and purpose=batch are wanted")
            name = self._keep(await file.read())
            about = {"id": name, "object": "file", "purpose": "batch", "filename": file.filename, "status": "processed"}
        return JSONResponse({**about, "bytes": len(self.files[name]), "created_at": int(time.time()), "standin": True})

    async def content(self, request: Request) -> Response:
        """GET /files/{id}/content."""
        return Response(_named(self.files, request), media_type="application/octet-stream")

    async def create(self, request: Request) -> Response:
        """POST /batches."""
        wanted = await authorised_json(request)
        known = wanted.get("input_file_id") in self.files and wanted.get("endpoint") in _ENDPOINTS
        if not known or wanted.get("completion_window") != "24h":
            raise refusal(400, "invalid_request", "no such file or endpoint, or another window than 24h")
        batch = {
            "id": f"batch_{uuid4().hex}",
            "object": "batch",
            "status": "in_progress",
            "created_at": int(time.time()),
            "output_file_id": None,
            "error_file_id": None,
            "errors": None,
            "metadata": wanted.get("metadata"),
            **{name: wanted[name] for name in ("input_file_id", "endpoint", "completion_window")},
            "standin": True,
        }
        self.batches[batch["id"]] = batch
        return JSONResponse(batch)

    async def listing(self, request: Request) -> Response:
        """GET /batches, the newest first."""
        names = list(reversed(self.batches))
        after = request.query_params.get("after")
        start = names.index(after) + 1 if after in names else 0
        page = names[start : start + int(request.query_params.get("limit", 20))]
        data, more = [self.batches[name] for name in page], len(names) > start + len(page)
        ends = {"first_id": page[0], "last_id": page[-1]} if page else {"first_id": None, "last_id": None}
        return JSONResponse({"object": "list", "data": data, "has_more": more, **ends})

    async def retrieve(self, request: Request) -> Response:
        """GET /batches/{id}: does its work, unless that is done."""
        batch = _named(self.batches, request)
        if batch["status"] == "in_progress":
            batch["status"] = "finalizing"  # for whoever looks meanwhile
            await self.work(request, batch)
        return JSONResponse(batch)

    async def cancel(self, request: Request) -> Response:
        """POST /batches/{id}/cancel."""
        batch = _named(self.batches, request)
        if batch["status"] == "in_progress":
            batch["status"] = "cancelled"
        return JSONResponse(batch)

    async def work(self, request: Request, batch: dict[str, Any]) -> None:
        """Answer every line, and end the batch."""
        self.finish(batch, [await self.answered(request, line) for line in self.lines(batch)], "completed")

    def lines(self, batch: dict[str, Any]) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.files[batch["input_file_id"]].splitlines()]

    async def answered(self, request: Request, line: dict[str, Any]) -> dict[str, Any]:
        """The line of the results for one of the requests."""
        host, port = request.scope["server"]
        headers = {"Authorization": request.headers.get("authorization", ""), IN_BATCH: line["custom_id"]}
        url = f"http://{host}:{port}/openai{line['url']}"
        answer = await run_in_threadpool(requests.post, url, json=line["body"], headers=headers, timeout=60)
        told = {"status_code": answer.status_code, "request_id": uuid4().hex, "body": answer.json()}
        return {"id": f"batch_req_{uuid4().hex}", "custom_id": line["custom_id"], "response": told, "error": None}

    def finish(self, batch: dict[str, Any], answers: list[dict[str, Any]], status: str) -> None:
        """End the batch with these lines, of which those that are no good answers are in the file of errors."""
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


def _named(among: dict[str, Any], request: Request) -> Any:
    if request.path_params["id"] not in among:
        raise refusal(404, "not_found", "No such object")
    return among[request.path_params["id"]]
