"""The stand-ins' application: which path is answered by what."""

from typing import Any

from fastapi import HTTPException
from pydantic import ValidationError
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from imgpipe_orchestration.devstack.standins import (
    FILES,
    FLOWISE,
    GOOGLE,
    OPENAI,
    VISION_ANALYSIS,
    VISION_ANALYSIS_UPLOAD,
    flowise_api,
    google_api,
    openai_api,
)
from imgpipe_orchestration.devstack.standins.openai_batches import Batches
from imgpipe_orchestration.devstack.standins.vision_analysis_api import Desk


def create_app(batches: Batches | None = None) -> Starlette:
    """A new application, which has listed and answered nothing yet."""
    desk, batches = Desk(), batches or Batches()
    post, get = ["POST"], ["GET"]
    return Starlette(
        routes=[
            Route(f"{OPENAI}/responses", openai_api.responses, methods=post),
            Route(f"{OPENAI}/embeddings", openai_api.embeddings, methods=post),
            Route(f"{OPENAI}/images/generations", openai_api.generations, methods=post),
            Route(f"{OPENAI}/images/edits", openai_api.edits, methods=post),
            Route(f"{OPENAI}/moderations", openai_api.moderations, methods=post),
            Route(f"{OPENAI}/models", openai_api.models, methods=get),
            Route(f"{OPENAI}/files", batches.upload, methods=post),
            Route(f"{OPENAI}/files/{{id}}/content", batches.content, methods=get),
            Route(f"{OPENAI}/batches", batches.create, methods=post),
            Route(f"{OPENAI}/batches", batches.listing, methods=get),
            Route(f"{OPENAI}/batches/{{id}}", batches.retrieve, methods=get),
            Route(f"{OPENAI}/batches/{{id}}/cancel", batches.cancel, methods=post),
            Route(f"{GOOGLE}/v1/images:annotate", google_api.annotate, methods=post),
            Route(f"{FLOWISE}/api/v1/prediction/{{flow}}", flowise_api.predict, methods=post),
            Route(VISION_ANALYSIS, desk.listing, methods=get),
            Route(VISION_ANALYSIS_UPLOAD, desk.upload, methods=post),
            Route(f"{FILES}/{{name}}", desk.file, methods=get),
            Route("/_standin/vision-analyses", desk.seed, methods=post),
            Route("/_standin/reports", desk.uploaded, methods=get),
            Route("/health", _health),
        ],
        exception_handlers={HTTPException: _refused, ValidationError: _invalid},
    )


async def _health(_: Request) -> Response:
    return JSONResponse({"status": "ok", "standin": True})


async def _refused(_: Request, refusal: Any) -> Response:
    return JSONResponse(refusal.detail, refusal.status_code)


async def _invalid(_: Request, error: Exception) -> Response:
    return JSONResponse({"error": str(error)}, 422)
