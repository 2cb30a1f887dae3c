"""The stand-ins' application: the providers' routes, and the routes that control them."""

from __future__ import annotations

from pathlib import Path

from pydantic import TypeAdapter, ValidationError
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from imgpipe_orchestration.devstack.standins import flowise_api, google_api, moderation, openai_api, vision_analysis_api
from imgpipe_orchestration.devstack.standins.addresses import (
    FILES,
    FLOWISE,
    GOOGLE,
    OPENAI,
    VISION_ANALYSIS,
    VISION_ANALYSIS_UPLOAD,
)
from imgpipe_orchestration.devstack.standins.control import Control, Fault, Limit
from imgpipe_orchestration.devstack.standins.openai_batches import Batches
from imgpipe_orchestration.devstack.standins.vision_analysis_api import FILES_PROVIDER, Desk, Seed, Stored
from imgpipe_orchestration.devstack.standins.wire import Handler, Provider, answering


def create_app(folder: Path | None) -> Starlette:
    """A new application. Analyses that an earlier one has kept in `folder` are there, nothing else is seeded."""
    steer = Steering(Control(), Desk(folder))
    desk, batches = steer.desk, steer.batches

    def route(path: str, provider: Provider, operation: str, handler: Handler, method: str = "POST") -> Route:
        return Route(path, answering(steer.control, provider, operation, handler), methods=[method])

    openai, flowise = openai_api.PROVIDER, flowise_api.PROVIDER
    vision, files = vision_analysis_api.PROVIDER, FILES_PROVIDER
    return Starlette(
        routes=[
            route(f"{OPENAI}/responses", openai, "responses", openai_api.responses),
            route(f"{OPENAI}/chat/completions", openai, "chat", openai_api.chat),
            route(f"{OPENAI}/embeddings", openai, "embeddings", openai_api.embeddings),
            route(f"{OPENAI}/images/generations", openai, "images", openai_api.generations),
            route(f"{OPENAI}/images/edits", openai, "edits", openai_api.edits),
            route(f"{OPENAI}/moderations", openai, "moderations", moderation.openai),
            route(f"{OPENAI}/files", openai, "files", batches.upload),
            route(f"{OPENAI}/files/{{id}}/content", openai, "file", batches.content, "GET"),
            route(f"{OPENAI}/batches", openai, "batches", batches.create),
            route(f"{OPENAI}/batches", openai, "batch_list", batches.listing, "GET"),
            route(f"{OPENAI}/batches/{{id}}", openai, "batch", batches.retrieve, "GET"),
            route(f"{OPENAI}/batches/{{id}}/cancel", openai, "batch_cancel", batches.cancel),
            route(f"{OPENAI}/models", openai, "models", openai_api.models, "GET"),
            route(f"{GOOGLE}/v1/images:annotate", google_api.PROVIDER, "annotate", google_api.annotate),
            route(f"{FLOWISE}/api/v1/prediction/{{flow}}", flowise, "prediction", flowise_api.predict),
            route(VISION_ANALYSIS, vision, "list", desk.listing, "GET"),
            route(VISION_ANALYSIS_UPLOAD, vision, "upload", desk.upload),
            route(f"{FILES}/{{name}}", files, "get", desk.file, "GET"),
            Route("/health", steer.health),
            Route("/_standin/calls", steer.calls, methods=["GET", "DELETE"]),
            Route("/_standin/faults", steer.faults, methods=["GET", "POST", "DELETE"]),
            Route("/_standin/delays", steer.delays, methods=["GET", "POST"]),
            Route("/_standin/limits", steer.limits, methods=["GET", "POST"]),
            Route("/_standin/vision-analyses", steer.analyses, methods=["GET", "POST"]),
            Route("/_standin/reports", steer.reports),
            Route("/_standin/files/{name}", steer.files, methods=["PUT", "POST"]),
            Route("/_standin/state", steer.forget, methods=["DELETE"]),
        ],
        exception_handlers={ValidationError: _invalid},
    )


class Steering:
    """The routes under /_standin."""

    def __init__(self, control: Control, desk: Desk) -> None:
        self.control = control
        self.desk = desk
        self.batches = Batches(
            control,
            {
                "/v1/responses": ("responses", openai_api.responses),
                "/v1/embeddings": ("embeddings", openai_api.embeddings),
                "/v1/images/generations": ("images", openai_api.generations),
                "/v1/images/edits": ("edits", openai_api.edits),
            },
        )

    async def health(self, _: Request) -> Response:
        return JSONResponse({"status": "ok", "standin": True})

    async def calls(self, request: Request) -> Response:
        """GET: the journal (`?provider=&operation=`). DELETE: forget it."""
        if request.method == "DELETE":
            self.control.calls.clear()
            self.control.counts.clear()
            self.control.most_in_flight.clear()
            return Response(status_code=204)
        query = request.query_params
        return JSONResponse(self.control.journal(provider=query.get("provider"), operation=query.get("operation")))

    async def faults(self, request: Request) -> Response:
        """POST: one fault or a list of them. GET: those seeded, with hits. DELETE: none from now on."""
        if request.method == "DELETE":
            self.control.withdraw_faults()
            return Response(status_code=204)
        if request.method == "POST":
            wanted = await request.json()
            self.control.faults += TypeAdapter(list[Fault]).validate_python(
                wanted if isinstance(wanted, list) else [wanted]
            )
        return JSONResponse([fault.model_dump(mode="json") for fault in self.control.faults])

    async def delays(self, request: Request) -> Response:
        """POST: {"flowise": 0.2, "openai.images": 0.5}; a value of 0 removes a delay."""
        if request.method == "POST":
            wanted = TypeAdapter(dict[str, float]).validate_python(await request.json())
            merged = {**self.control.delays, **wanted}
            self.control.delays = {name: seconds for name, seconds in merged.items() if seconds > 0}
        return JSONResponse(self.control.delays)

    async def limits(self, request: Request) -> Response:
        """POST: {"openai": {"requests": 5, "seconds": 1}}."""
        if request.method == "POST":
            self.control.limits |= TypeAdapter(dict[str, Limit]).validate_python(await request.json())
        return JSONResponse({name: limit.model_dump() for name, limit in self.control.limits.items()})

    async def analyses(self, request: Request) -> Response:
        """POST: one seed or a list of them. GET: all analyses, processed or not."""
        if request.method == "GET":
            return JSONResponse(self.desk.analyses)
        wanted = await request.json()
        seeds = TypeAdapter(list[Seed]).validate_python(wanted if isinstance(wanted, list) else [wanted])
        base_url = f"{request.url.scheme}://{request.url.netloc}"
        return JSONResponse([self.desk.seed(seed, base_url) for seed in seeds], 201)

    async def reports(self, _: Request) -> Response:
        """GET: the reports uploaded so far."""
        return JSONResponse(self.desk.reports)

    async def files(self, request: Request) -> Response:
        """PUT or POST: a file that documents may then point at."""
        media_type = request.headers.get("content-type", "application/octet-stream")
        self.desk.add_file(request.path_params["name"], Stored(await request.body(), media_type))
        return Response(status_code=201)

    async def forget(self, _: Request) -> Response:
        """DELETE: everything forgotten, what is kept in the folder as well."""
        self.control.reset()
        self.desk.clear()
        self.batches.clear()
        return Response(status_code=204)


async def _invalid(_: Request, error: Exception) -> Response:
    return JSONResponse({"error": str(error)}, 422)
