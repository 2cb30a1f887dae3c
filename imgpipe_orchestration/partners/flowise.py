"""Flowise's prediction endpoint, with answers validated against a schema.

A flow answers in `json` (structured output) or in `text`, where JSON often is in a Markdown fence or within prose. An
answer that does not fit the schema is asked for once more, with the reason, because models then usually correct it.
https://docs.flowiseai.com/using-flowise/prediction
"""

import json
from collections.abc import Iterable
from contextlib import nullcontext
from typing import Annotated, Any, TypeVar
from urllib.parse import quote

import pydantic

from imgpipe_orchestration.errors import UnreadableAnswer
from imgpipe_orchestration.partners.http import JsonApi
from imgpipe_orchestration.partners.json_text import decoded, fitting, problem_in, values_in
from imgpipe_orchestration.partners.retry import RetryPolicy
from imgpipe_orchestration.partners.usage import Priced, Usage, charged

Schema = TypeVar("Schema")

PROSE = Annotated[str, pydantic.StringConstraints(strip_whitespace=True, min_length=1, max_length=8000)]
"""What a flow is asked for that writes prose, such as an image prompt, as plain text or as JSON with one string."""

_NAME = "Flowise"
_LONGEST = 2 * 1024 * 1024
"""Bytes of an answer. Ten people take 20 KB; JSON of 30 MB took 6.7 GB of memory."""


class Flowise(JsonApi):
    """Client of one Flowise server."""

    def __init__(
        self, base_url: str, api_key: str = "", *, timeout: float = 60.0, policy: RetryPolicy | None = None
    ) -> None:
        headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        super().__init__(_NAME, base_url, headers=headers, timeout=timeout, policy=policy, paid=True)

    def predict(self, flow_id: str, question: Any, schema: type[Schema] | Any) -> Priced[Schema]:
        """Ask a flow and get an answer that follows `schema`: the longest value in it that does, as shorter ones may be
        examples. The units of its usage are the calls that it took, one or two.

        Args:
            question: text, or a JSON-serialisable value, which is sent as JSON text.
            schema: whatever `pydantic.TypeAdapter` takes: a model, `list[Model]`, ... or PROSE.

        Raises:
            UnreadableAnswer: two answers in a row did not follow the schema.
            PartnerRefused: also for an unknown flow (404).
            RateLimited, PartnerUnavailable: as in `JsonApi.request`.
        """
        adapter = pydantic.TypeAdapter[Schema](schema)
        asked = question if isinstance(question, str) else json.dumps(question, ensure_ascii=False)
        text, problem, path = asked, "", f"/api/v1/prediction/{quote(flow_id, safe='')}"
        for calls in (1, 2):
            with charged(Usage(model=flow_id, units=calls - 1)) if calls > 1 else nullcontext():
                answer = self.request_json("POST", path, json_body={"question": text}, limit=_LONGEST)
            try:
                values = [_prose(answer)] if schema is PROSE else _payloads(answer)
                parsed = fitting(sorted(values, key=lambda value: -len(str(value))), adapter.validate_python)
            except ValueError as error:
                problem = problem_in(error)
                text = _again(question, asked, problem)
                continue
            standin = "-standin" if isinstance(answer, dict) and answer.get("standin") else ""
            return Priced(parsed, Usage(model=flow_id + standin, units=calls))
        with charged(Usage(model=flow_id, units=2)):
            raise UnreadableAnswer(f"{_NAME} flow {flow_id} gave no valid answer twice: {problem}")


def _payloads(answer: Any) -> Iterable[Any]:
    """The JSON value in `json`, else those in `text`; ValueError where there is neither."""
    if not isinstance(answer, dict):
        return [answer]
    structured = answer.get("json")
    if structured not in (None, "", {}, []):
        return [decoded(structured) if isinstance(structured, str) else structured]
    text = answer.get("text")
    if not isinstance(text, str) or not text.strip():
        raise ValueError("the answer has nothing in `json` or `text`")
    return values_in(text)


def _prose(answer: Any) -> Any:
    """The text of an answer: the only string in its JSON, else `text` itself (prose may have brackets in it).

    Text that is JSON without a string is not prose, and gives None. ValueError where there is nothing at all.
    """
    text: Any = answer.get("text") if isinstance(answer, dict) else answer
    try:
        found = next(iter(_payloads(answer)), None)
    except ValueError:
        if not (isinstance(text, str) and text.strip()):
            raise
        found = None
    if isinstance(found, dict):
        texts = [value for value in found.values() if isinstance(value, str)]
        found = texts[0] if len(texts) == 1 else found.get("prompt")
    if isinstance(found, str):
        return found
    try:
        decoded(text)
    except (ValueError, AttributeError):
        return text
    return None


def _again(question: Any, asked: str, problem: str) -> str:
    """The question with what was wrong with the answer. An object stays one, for a flow that parses it."""
    if isinstance(question, dict):
        return json.dumps({**question, "previous_problem": problem}, ensure_ascii=False)
    return f"{asked}\n\nYour previous answer was invalid: {problem}\nAnswer with valid JSON only."
