"""Warming up OpenAI's SDK by parsing one made-up answer of each kind.

At first use the SDK imports half of itself and Pydantic builds its schemas: 0.4 s of CPU, in all threads of a run at
the same time. A process that forks others does it once for all of them.
"""

from __future__ import annotations

import httpx2
import openai
from pydantic import BaseModel

_TEXT = {"type": "output_text", "text": '{"word": "yes"}', "annotations": []}
_ANSWERS = {
    "/responses": {
        "id": "warm-up",
        "object": "response",
        "created_at": 0,
        "model": "none",
        "status": "completed",
        "parallel_tool_calls": False,
        "tool_choice": "auto",
        "tools": [],
        "output": [
            {"type": "message", "id": "1", "role": "assistant", "status": "completed", "content": [_TEXT]},
        ],
    },
    "/embeddings": {"object": "list", "model": "none", "data": [{"object": "embedding", "index": 0, "embedding": [1]}]},
    "/images/generations": {"created": 0, "data": [{"b64_json": ""}]},
}


class _Word(BaseModel):
    word: str


def warm_up() -> None:
    """Parse the answers; makes no connection and leaves no thread."""
    transport = httpx2.MockTransport(lambda request: httpx2.Response(200, json=_ANSWERS[request.url.path]))
    with openai.OpenAI(
        api_key="none", base_url="http://warm-up", http_client=httpx2.Client(transport=transport)
    ) as sdk:
        sdk.responses.parse(model="none", input=[{"role": "user", "content": "?"}], text_format=_Word).to_dict()
        sdk.embeddings.create(model="none", input="?", dimensions=1)
        sdk.images.generate(model="none", prompt="?")
