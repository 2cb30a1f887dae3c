"""Chat completions, OpenAI's older protocol, which Ollama, vLLM, LiteLLM, Azure and OpenRouter speak as well.

Many such servers, or the models behind them, know no JSON schema. What they refuse is asked for in the next simpler
form, and the form that worked is remembered for the model.
https://platform.openai.com/docs/api-reference/chat/create
"""

import json
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

from imgpipe_orchestration.errors import PartnerRefused, UnreadableAnswer
from imgpipe_orchestration.partners.json_text import fitting, problem_in, values_in
from imgpipe_orchestration.partners.openai import OpenAIClient, Query, Schema, closed, data_url, json_schema
from imgpipe_orchestration.partners.openai_answers import attribute, expect, from_answer, usage_of
from imgpipe_orchestration.partners.usage import Priced, Usage, charged

_FORMS = ("json_schema", "json_object", "text")
"""Forms of an answer, from the strictest on."""
_UNKNOWN_FORM = {400, 404, 422, 501}
"""Statuses with which servers refuse a form of answer that they do not know."""


class OpenAIChatClient(OpenAIClient):
    """As `OpenAIClient`, but questions go to `/chat/completions`."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._forms: dict[str, int] = {}

    def answer(self, query: Query[Schema], *, model: str) -> Priced[Schema]:
        """As `OpenAIClient.answer`. An answer that does not fit is asked for once more, with what was wrong.

        Raises:
            UnreadableAnswer: two answers did not fit; names the field.
        """
        content: list[dict[str, Any]] = [{"type": "text", "text": query.prompt}]
        if query.image is not None:
            shown = {"url": data_url(query.image), "detail": query.detail}
            content.append({"type": "image_url", "image_url": shown})
        messages: list[dict[str, Any]] = []
        if query.instructions:
            messages.append({"role": "system", "content": query.instructions})
        messages.append({"role": "user", "content": content})
        usage, problem = Usage(), ""
        for asked in range(2):
            with charged(usage) if asked else nullcontext():
                text, more, raw = self._ask(model, messages, query.schema)
            usage += more
            try:
                return Priced(fitting(values_in(text), query.schema.model_validate), usage, raw)
            except ValueError as error:
                problem = problem_in(error)
            again = f"That answer was invalid: {problem}\nAnswer again, with JSON only, which follows the schema."
            messages += [
                {"role": "assistant", "content": text},
                {"role": "user", "content": f"{again}\n{json.dumps(json_schema(query.schema))}"},
            ]
        with charged(usage):
            raise UnreadableAnswer(f"{model} gave no valid answer twice: {problem}")

    def _ask(self, model: str, messages: list[dict[str, Any]], schema: type[Schema]) -> tuple[str, Usage, Any]:
        """The text of an answer, in the strictest form that the server knows."""
        refused: PartnerRefused | None = None
        for number in range(self._forms.get(model, 0), len(_FORMS)):
            try:
                found = self._complete(model, _in_form(_FORMS[number], messages, schema))
            except PartnerRefused as error:
                if error.partner_status not in _UNKNOWN_FORM:
                    raise
                refused = refused or error
                continue
            self._forms[model] = number
            return found
        assert refused is not None  # noqa: S101 - every form was refused
        raise refused

    def _complete(self, model: str, arguments: dict[str, Any]) -> tuple[str, Usage, Any]:
        response = self.call(model, lambda sdk: sdk.chat.completions.create(model=model, **arguments))
        usage = usage_of(response, model)
        with charged(usage):
            choices = attribute(response, "choices")
            # OpenRouter tells in the choice of a provider that failed midway: openrouter.ai/docs, "Errors".
            failed = choices[0] if isinstance(choices, list) and choices else response
            if (error := attribute(failed, "error")) is not None:
                raise from_answer(SimpleNamespace(**error) if isinstance(error, dict) else error, self.name)
            choices = expect(response, "choices", list, self.name)
            message = attribute(choices[0], "message") if choices else None
            ended = attribute(choices[0], "finish_reason") if choices else None
            if attribute(message, "refusal") or ended == "content_filter":
                said = str(attribute(message, "refusal"))[:500]
                raise PartnerRefused(f"{model} refused to answer (content policy)", detail=said)
            text = attribute(message, "content")
            if isinstance(text, list):  # Mistral's reasoning models answer in parts, thoughts among them
                text = "".join(str(part["text"]) for part in text if isinstance(part, dict) and "text" in part) or None
            if not isinstance(text, str) or ended == "length":
                raise UnreadableAnswer(f"{model}'s answer is {'cut off' if ended == 'length' else 'without text'}")
        return text, usage, response.to_dict(mode="json", warnings=False)


def _in_form(form: str, messages: list[dict[str, Any]], schema: type[Schema]) -> dict[str, Any]:
    if form == "json_schema":
        wanted = {"name": schema.__name__, "strict": True, "schema": closed(json_schema(schema))}
        return {"messages": messages, "response_format": {"type": form, form: wanted}}
    told = (
        f"Answer with one JSON object and nothing else. It follows this JSON schema: {json.dumps(json_schema(schema))}"
    )
    arguments: dict[str, Any] = {"messages": [{"role": "system", "content": told}, *messages]}
    return arguments | ({"response_format": {"type": form}} if form == "json_object" else {})
