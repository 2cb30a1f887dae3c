"""Routes for pages of every origin: those of images and of the components, which read no cookies."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute

from imgpipe_orchestration.errors import ImgpipeError
from imgpipe_orchestration.web.problems import of_invalid, reported


class OpenRoute(APIRoute):
    """A route for every origin, whose pages may also read its errors."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def handled(request: Request) -> Response:
            try:
                answer = await handle(request)
            except ImgpipeError as error:
                answer = reported(error, request.url.path)
            except RequestValidationError as error:
                answer = of_invalid(error)
            answer.headers.setdefault("Access-Control-Allow-Origin", "*")
            return answer

        return handled


def answer_preflights(router: APIRouter, path: str, *headers: str) -> None:
    """Let pages of other origins send these headers, beyond those that they may send without asking.

    Args:
        router: its routes are `OpenRoute`s.
    """
    allowed = {"Access-Control-Allow-Headers": ", ".join(headers), "Access-Control-Max-Age": "86400"}

    def preflight() -> Response:
        return Response(status_code=204, headers=allowed)

    router.add_api_route(path, preflight, methods=["OPTIONS"], include_in_schema=False)
