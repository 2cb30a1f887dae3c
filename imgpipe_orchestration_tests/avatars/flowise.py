"""A Flowise that answers what a test wants, in turn, and remembers what it was asked."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from typing import Any

from imgpipe_orchestration_tests.partners.wire import Server, reply, serving


class AnyFlowise:
    """Answers persona questions with the given bodies, one each, the last for ever; prompts with a sentence. A question
    whose text has `hard` in it is answered 500 with these words."""

    def __init__(self, answers: list[dict[str, Any]]) -> None:
        self.server: Server
        self.answers = list(answers)
        self.questions: list[str] = []
        self.hard: dict[str, str] = {}
        self._lock = threading.Lock()

    @property
    def url(self) -> str:
        return self.server.url

    @property
    def authorizations(self) -> set[str | None]:
        return {headers.get("authorization") for _, headers, _ in self.server.requests}

    def behave(self, handler: BaseHTTPRequestHandler, number: int) -> None:
        path, _, body = self.server.requests[number]
        asked = json.loads(body)["question"]
        if words := next((words for part, words in self.hard.items() if part in asked), ""):
            told = json.dumps({"statusCode": 500, "success": False, "message": words, "stack": {}}).encode()
            reply(handler, told, 500, Content_Type="application/json")
            return
        answer = {"text": "A portrait of somebody."}
        if path.endswith("/persona-data"):
            with self._lock:
                self.questions.append(asked)
                answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        reply(handler, json.dumps(answer).encode(), Content_Type="application/json")


@contextmanager
def flowise_answering(*answers: dict[str, Any]) -> Iterator[AnyFlowise]:
    flowise = AnyFlowise(list(answers))
    with serving(flowise.behave) as flowise.server:
        yield flowise
