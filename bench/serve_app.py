"""`python bench/serve_app.py PORT KEY`: the gateway with a bare Starlette route beside it, for bench_serve."""

from __future__ import annotations

import sys

import uvicorn
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from imgpipe_orchestration.gateway.app import create_app
from imgpipe_orchestration.services import Services
from imgpipe_orchestration.settings import load


def main(port: int, key: str) -> None:
    settings = load()
    content = Services(settings).media_bucket.get(key)

    async def bare(_: Request) -> Response:
        return Response(content, media_type="image/webp", headers={"ETag": '"bare"', "Vary": "Accept"})

    app = create_app(settings)
    app.router.routes.insert(0, Route("/bare", bare))
    uvicorn.run(app, host="127.0.0.1", port=port, log_config=None, access_log=False)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
