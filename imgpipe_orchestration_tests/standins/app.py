"""The application: every call to a partner is written down, delayed, refused or spoilt as tests have asked for."""

import asyncio
import functools
import hashlib
import json
import time
from collections.abc import MutableMapping
from contextlib import suppress
from typing import Any

from pydantic import TypeAdapter
from starlette.applications import Starlette
from starlette.datastructures import UploadFile
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Mount, Route
from starlette.types import Receive, Scope, Send

from imgpipe_orchestration.devstack import standins
from imgpipe_orchestration.devstack.standins.app import create_app as create_good_app
from imgpipe_orchestration.devstack.standins.openai_batches import IN_BATCH, Batches, NewBatch
from imgpipe_orchestration_tests.standins.control import OF_BATCHES, Call, Control, Fault, Kind, Limit
from imgpipe_orchestration_tests.standins.spoiling import error_of, instead, spoilt

DONE = JSONResponse(None)
_OPENAI = standins.OPENAI
OPERATIONS = (
    ("POST", f"{_OPENAI}/responses", "openai", "responses"),
    ("POST", f"{_OPENAI}/chat/completions", "openai", "chat"),
    ("POST", f"{_OPENAI}/embeddings", "openai", "embeddings"),
    ("POST", f"{_OPENAI}/images/generations", "openai", "images"),
    ("POST", f"{_OPENAI}/images/edits", "openai", "edits"),
    ("POST", f"{_OPENAI}/moderations", "openai", "moderations"),
    ("POST", f"{_OPENAI}/files", "openai", "files"),
    ("GET", f"{_OPENAI}/files/{{id}}/content", "openai", "file"),
    ("POST", f"{_OPENAI}/batches", "openai", "batches"),
    ("GET", f"{_OPENAI}/batches", "openai", "batch_list"),
    ("GET", f"{_OPENAI}/batches/{{id}}", "openai", "batch"),
    ("POST", f"{_OPENAI}/batches/{{id}}/cancel", "openai", "batch_cancel"),
    ("GET", f"{_OPENAI}/models", "openai", "models"),
    ("POST", f"{standins.GOOGLE}/v1/images:annotate", "google", "annotate"),
    ("POST", f"{standins.FLOWISE}/api/v1/prediction/{{flow}}", "flowise", "prediction"),
    ("GET", standins.VISION_ANALYSIS, "vision_analysis", "list"),
    ("POST", standins.VISION_ANALYSIS_UPLOAD, "vision_analysis", "upload"),
    ("GET", f"{standins.FILES}/{{name}}", "files", "get"),
)


def create_app() -> Starlette:
    faulty = Faulty()
    return Starlette(
        routes=[
            *(
                Route(path, functools.partial(faulty.call, provider=provider, operation=operation), methods=[method])
                for method, path, provider, operation in OPERATIONS
            ),
            Route("/_standin/calls", faulty.calls, methods=["GET", "DELETE"]),
            Route("/_standin/faults", faulty.faults, methods=["POST", "DELETE"]),
            Route("/_standin/delays", faulty.delays, methods=["POST"]),
            Route("/_standin/limits", faulty.limits, methods=["POST"]),
            Route("/_standin/state", faulty.forget, methods=["DELETE"]),
            Mount("/", faulty.rest),
        ]
    )


class Faulty:
    """What is asked for, and the product's app behind it."""

    def __init__(self) -> None:
        self.control = Control()
        self.good = create_good_app(SlowBatches(self.control))

    async def rest(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.good(scope, receive, send)

    async def call(self, request: Request, provider: str, operation: str) -> Response:
        call = Call(time.time(), provider, operation)
        self.control.enter(call)
        status = 0
        try:
            call.input_hash, call.model = await _looked_into(request)
            response = await self._answer(request, call)
            status = response.status_code
            return response
        finally:
            self.control.leave(call, status)

    async def _answer(self, request: Request, call: Call) -> Response:
        in_batch, provider = IN_BATCH in request.headers, call.provider
        headers, refused = ({}, False) if in_batch else self.control.limited(provider)
        if in_batch:
            call.note = {"in_batch": True}
        if refused:
            said = error_of(provider, 429, "rate_limit_exceeded", "Rate limit reached (stand-in)")
            return JSONResponse(said, 429, headers=headers)
        searched = await request.body() + request.url.path.encode()
        fault = self.control.fault_for(provider, call.operation, searched)
        due = time.monotonic() + (0 if in_batch else self.control.delay_for(provider, call.operation))
        response = None
        if fault is not None:
            if fault.kind is Kind.SLOW:
                with suppress(TimeoutError):
                    await asyncio.wait_for(fault.withdrawn.wait(), fault.seconds)
            response = instead(fault, call)
        if response is None:
            wanted = request.scope
            if fault is not None and fault.kind is Kind.ENDLESS_PAGES:
                wanted = {**wanted, "query_string": wanted["query_string"].replace(b"page=", b"other=", 1)}
            ask = in_chat if call.operation == "chat" else asked
            response = await ask(self.good, wanted, await request.body())
            response = spoilt(fault, call, response) if fault is not None and response.status_code < 400 else response
        # The delay includes the time that the answer took.
        await asyncio.sleep(due - time.monotonic())
        for name, value in headers.items():
            response.headers.setdefault(name, value)
        return response

    # --- what tests ask for --------------------------------------------------------------------------------------

    async def calls(self, request: Request) -> Response:
        """GET: the journal (`?provider=&operation=`). DELETE: forget it."""
        if request.method == "DELETE":
            self.control.forget_calls()
            return DONE
        query = request.query_params
        return JSONResponse(self.control.journal(provider=query.get("provider"), operation=query.get("operation")))

    async def faults(self, request: Request) -> Response:
        """POST: one more. DELETE: none from now on."""
        if request.method == "DELETE":
            self.control.withdraw_faults()
        else:
            self.control.faults.append(Fault.model_validate_json(await request.body()))
        return DONE

    async def delays(self, request: Request) -> Response:
        """POST: {"flowise": 0.2, "openai.images": 0.5}; a value of 0 ends a delay."""
        self.control.delays |= await request.json()
        return DONE

    async def limits(self, request: Request) -> Response:
        """POST: {"openai": {"requests": 5, "seconds": 1}}."""
        self.control.limits |= TypeAdapter(dict[str, Limit]).validate_json(await request.body())
        return DONE

    async def forget(self, _: Request) -> Response:
        """DELETE: everything is as at the first start."""
        self.control.reset()
        self.good = create_good_app(SlowBatches(self.control))
        return DONE


async def _looked_into(request: Request) -> tuple[str, str]:
    """A hash that is equal for equal requests, so that a double purchase shows, and the model that was asked.

    A multipart body has a random boundary in it, so it goes by its parts.
    """
    body = await request.body()
    if request.headers.get("content-type", "").startswith("multipart/form-data"):
        async with request.form(max_part_size=256 * 1024 * 1024) as form:
            files = [await part.read() for part in form.values() if isinstance(part, UploadFile)]
            fields = {name: value for name, value in form.multi_items() if isinstance(value, str)}
        parts = [*files, json.dumps(sorted(fields.items())).encode()]
        hashed = hashlib.sha256(b"".join(hashlib.sha256(part).digest() for part in parts)).hexdigest()
        return hashed, fields.get("model", "")
    model = ""
    with suppress(ValueError, AttributeError):
        model = str(json.loads(body).get("model", ""))
    return hashlib.sha256(body).hexdigest(), model


async def asked(app: Starlette, scope: MutableMapping[str, Any], body: bytes) -> Response:
    """What the app answers to a request."""
    sent: list[MutableMapping[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: MutableMapping[str, Any]) -> None:
        sent.append(message)

    await app(dict(scope), receive, send)
    response = Response(b"".join(message.get("body", b"") for message in sent[1:]), sent[0]["status"])
    response.raw_headers = list(sent[0]["headers"])
    return response


async def in_chat(app: Starlette, scope: MutableMapping[str, Any], body: bytes) -> Response:
    """The app's answer to a question in `/chat/completions`: that of `/responses`, in the other shape."""
    try:
        wanted = dict(json.loads(body))
    except (ValueError, TypeError):
        return await asked(app, {**scope, "path": f"{_OPENAI}/responses"}, body)
    messages = wanted.get("messages", [])
    pictures = [part for one in messages for part in one["content"] if isinstance(part, dict) and "image_url" in part]
    for picture in pictures:
        picture["image_url"] = picture["image_url"]["url"]
    schema = (wanted.get("response_format") or {}).get("json_schema", {}).get("schema")
    question = {"model": wanted.get("model"), "input": messages, "text": {"format": {"schema": schema}}}
    response = await asked(app, {**scope, "path": f"{_OPENAI}/responses"}, json.dumps(question).encode())
    if response.status_code != 200:
        return response
    answer = json.loads(bytes(response.body))
    said, usage = answer["output"][0]["content"][0]["text"], answer["usage"]
    message = {"role": "assistant", "content": said, "refusal": None}
    return JSONResponse(
        {
            "id": answer["id"].replace("resp_", "chatcmpl-"),
            "object": "chat.completion",
            "created": answer["created_at"],
            "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
            "usage": {
                "prompt_tokens": usage["input_tokens"],
                "completion_tokens": usage["output_tokens"],
                "total_tokens": usage["total_tokens"],
            },
            "model": answer["model"],
            "standin": True,
        }
    )


class SlowBatches(Batches):
    """Batches that take as long as the delay `openai.batch_work` since their creation, and end as faults have it."""

    def __init__(self, control: Control) -> None:
        super().__init__()
        self.control = control
        self.due: dict[str, float] = {}

    async def create(self, wanted: NewBatch) -> dict[str, Any]:
        batch = await super().create(wanted)
        self.due[batch["id"]] = time.time() + self.control.delays.get("openai.batch_work", 0)
        return batch

    async def retrieve(self, name: str, request: Request) -> dict[str, Any]:
        batch = self.batches.get(name, {})
        if batch.get("status") == "in_progress" and time.time() < self.due[name]:
            return batch
        return await super().retrieve(name, request)

    async def work(self, request: Request, batch: dict[str, Any]) -> None:
        fault = self.control.fault_for("openai", "batch", b"", among=OF_BATCHES)
        kind = fault.kind if fault else None
        if kind is Kind.FAILED:
            wrong = {"code": "invalid_json_line", "message": "This line is not parseable (seeded fault).", "line": 1}
            batch |= {"status": "failed", "errors": {"object": "list", "data": [wrong]}}
            return
        lines = self.lines(batch)
        done = lines[: len(lines) // 2] if kind else lines
        answers = [await self.answered(request, line) for line in done]
        if kind in (Kind.EXPIRED, Kind.CANCELLED):
            late = {"code": f"batch_{kind}", "message": "This request could not be executed in time (seeded fault)."}
            answers += [{"custom_id": one["custom_id"], "response": None, "error": late} for one in lines[len(done) :]]
        ends = {Kind.EXPIRED: "expired", Kind.CANCELLED: "cancelled"}
        self.finish(batch, answers, ends.get(kind, "completed") if kind else "completed")
