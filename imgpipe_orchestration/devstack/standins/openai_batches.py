"""OpenAI's files and batches. A batch's requests are answered by the stand-in's own routes, all at once when it is due.

A batch is done at the first look after the delay of `openai.batch_work` (see `Control.delays`), counted from its start.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

from starlette.datastructures import UploadFile
from starlette.responses import JSONResponse, Response

from imgpipe_orchestration.devstack.standins.control import Call, Control, Kind
from imgpipe_orchestration.devstack.standins.openai_api import PROVIDER, authorised_json, error
from imgpipe_orchestration.devstack.standins.wire import Asked, Handler

_HALF = {Kind.EXPIRED: "expired", Kind.CANCELLED: "cancelled", Kind.MISSING_LINES: "completed"}


@dataclass
class Batches:
    """The files and batches of the account."""

    control: Control
    handlers: Mapping[str, tuple[str, Handler]]
    """By endpoint: the journal's word for the operation, and who answers."""
    files: dict[str, bytes] = field(default_factory=dict)
    batches: dict[str, dict[str, Any]] = field(default_factory=dict)

    def clear(self) -> None:
        self.files.clear()
        self.batches.clear()

    async def upload(self, asked: Asked) -> Response:
        """POST /files."""
        async with asked.request.form(max_part_size=256 * 1024 * 1024) as form:
            file = form.get("file")
            if form.get("purpose") != "batch" or not isinstance(file, UploadFile):
                return JSONResponse(error(400, "invalid_request", "file and purpose=batch are wanted"), 400)
            name = self._keep(await file.read())
            about = {"id": name, "object": "file", "purpose": "batch", "filename": file.filename, "status": "processed"}
        return JSONResponse({**about, "bytes": len(self.files[name]), "created_at": int(time.time()), "standin": True})

    async def content(self, asked: Asked) -> Response:
        """GET /files/{id}/content."""
        found = self.files.get(asked.request.path_params["id"])
        if found is None:
            return JSONResponse(error(404, "not_found", "No such File object"), 404)
        return Response(found, media_type="application/octet-stream")

    async def create(self, asked: Asked) -> Response:
        """POST /batches."""
        wanted = authorised_json(asked)
        if isinstance(wanted, Response):
            return wanted
        if wanted.get("input_file_id") not in self.files or wanted.get("completion_window") != "24h":
            return JSONResponse(error(400, "invalid_request", "No such File object, or another window than 24h"), 400)
        if wanted.get("endpoint") not in self.handlers:
            return JSONResponse(error(400, "invalid_request", "endpoint is none that batches know"), 400)
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
        asked.call.note = {"batch": batch["id"]}
        self.batches[batch["id"]] = batch
        batch["due"] = time.time() + self.control.delays.get("openai.batch_work", 0)
        return JSONResponse(batch)

    async def listing(self, asked: Asked) -> Response:
        """GET /batches, the newest first."""
        names = list(reversed(self.batches))
        after = asked.request.query_params.get("after")
        start = names.index(after) + 1 if after in names else 0
        size = int(asked.request.query_params.get("limit", 20))
        page = names[start : start + size]
        ends = {"first_id": page[0], "last_id": page[-1]} if page else {"first_id": None, "last_id": None}
        data = [self.batches[name] for name in page]
        return JSONResponse({"object": "list", "data": data, "has_more": len(names) > start + size, **ends})

    async def retrieve(self, asked: Asked) -> Response:
        """GET /batches/{id}: does its work, if it is due."""
        batch = self.batches.get(asked.request.path_params["id"])
        if batch is None:
            return JSONResponse(error(404, "not_found", "No batch found with that id"), 404)
        if batch["status"] == "in_progress" and time.time() >= batch["due"]:
            await self._work(asked, batch)
        return JSONResponse(batch)

    async def cancel(self, asked: Asked) -> Response:
        """POST /batches/{id}/cancel."""
        batch = self.batches.get(asked.request.path_params["id"])
        if batch is None:
            return JSONResponse(error(404, "not_found", "No batch found with that id"), 404)
        if batch["status"] == "in_progress":
            batch["status"] = "cancelled"
        return JSONResponse(batch)

    async def _work(self, asked: Asked, batch: dict[str, Any]) -> None:
        if asked.spoils(Kind.FAILED):
            wrong = {"code": "invalid_json_line", "message": "This line is not parseable (seeded fault).", "line": 1}
            batch |= {"status": "failed", "errors": {"object": "list", "data": [wrong]}}
            return
        lines = [json.loads(line) for line in self.files[batch["input_file_id"]].splitlines()]
        spoilt = asked.fault.kind if asked.spoils(*_HALF) and asked.fault else None
        done = lines[: len(lines) // 2] if spoilt else lines
        answers = [await self._answered(asked, line) for line in done]
        good = [one for one in answers if one["response"]["status_code"] == 200]
        bad = [one for one in answers if one not in good]
        if spoilt in (Kind.EXPIRED, Kind.CANCELLED):
            late = {"code": f"batch_{spoilt}", "message": "This request could not be executed in time (seeded fault)."}
            bad += [{"custom_id": line["custom_id"], "response": None, "error": late} for line in lines[len(done) :]]
        for name, found in (("output_file_id", good), ("error_file_id", bad)):
            if found:
                batch[name] = self._keep("".join(json.dumps(one) + "\n" for one in found).encode())
        batch["status"] = _HALF[spoilt] if spoilt else "completed"

    async def _answered(self, asked: Asked, line: dict[str, Any]) -> dict[str, Any]:
        operation, handler = self.handlers[line["url"]]
        body = json.dumps(line["body"]).encode()
        call = Call(time.time(), PROVIDER.name, operation, line["url"], line["custom_id"], note={"in_batch": True})
        fault = self.control.fault_for(PROVIDER.name, operation, body)
        call.fault = fault.kind.value if fault else None
        self.control.enter(call)
        status, answer = 500, {"error": {"code": "server_error", "message": "seeded fault"}}
        if fault is None or fault.kind not in (Kind.SERVER_ERROR, Kind.LATE_ERROR):
            response = await handler(Asked(asked.request, body, call, fault))
            status, answer = response.status_code, json.loads(bytes(response.body))
        self.control.leave(call, status)
        response_ = {"status_code": status, "request_id": uuid4().hex, "body": answer}
        return {"id": f"batch_req_{uuid4().hex}", "custom_id": line["custom_id"], "response": response_, "error": None}

    def _keep(self, content: bytes) -> str:
        name = f"file-{uuid4().hex}"
        self.files[name] = content
        return name
