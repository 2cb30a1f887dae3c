"""The stand-ins' application."""

from typing import Any

from fastapi import FastAPI, HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from imgpipe_orchestration.devstack.standins import flowise_api, google_api, openai_api
from imgpipe_orchestration.devstack.standins.openai_batches import Batches
from imgpipe_orchestration.devstack.standins.vision_analysis_api import Desk


def create_app(batches: Batches | None = None) -> FastAPI:
    """A new application, which has listed and answered nothing yet."""
    app = FastAPI(openapi_url=None, strict_content_type=False, exception_handlers={HTTPException: _refused})
    apis: tuple[Any, ...] = (openai_api, batches or Batches(), google_api, flowise_api, Desk())
    for api in apis:
        app.include_router(api.router)
    app.get("/health")(lambda: {"status": "ok", "standin": True})
    return app


async def _refused(_: Request, refusal: Any) -> Response:
    """With an error in the partner's own shape."""
    return JSONResponse(refusal.detail, refusal.status_code)
