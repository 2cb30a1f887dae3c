"""A gateway as a process of its own, which kills itself at the n-th step of what it is sent: `... N`.

Its steps are the commits, before they reach the database, and the beginning of each answer.
"""

import itertools
import os
import signal
import sys
from typing import Any

import uvicorn
from sqlalchemy import Engine, event

from imgpipe_orchestration.gateway.app import create_app
from imgpipe_orchestration.settings import load


def main(last: int) -> None:
    settings = load()
    app, steps, asked = create_app(settings), itertools.count(1), False

    def step(*_: object) -> None:
        if asked and next(steps) == last:
            os.kill(os.getpid(), signal.SIGKILL)

    async def watched(scope: Any, receive: Any, send: Any) -> None:
        nonlocal asked
        uploads = scope["type"] == "http" and scope["method"] in {"PATCH", "POST"}
        asked = asked or uploads

        async def told(message: Any) -> None:
            if uploads and message["type"] == "http.response.start":
                step()
            await send(message)

        await app(scope, receive, told)

    event.listen(Engine, "commit", step)
    uvicorn.run(watched, host="127.0.0.1", port=settings.gateway_port, log_config=None, access_log=False)


if __name__ == "__main__":
    main(int(sys.argv[1]))
