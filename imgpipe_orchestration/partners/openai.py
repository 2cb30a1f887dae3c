"""OpenAI through its official SDK: analysing images, embeddings, generating and editing images.

The SDK's own retries are off; `retry` does that, within the caller's time. The SDK is imported at the first call, which
takes 0.9 s, and all threads share one HTTP client per instance.
"""

from __future__ import annotations

import base64
import functools
import re
from array import array
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from pydantic import BaseModel

from imgpipe_orchestration.errors import PartnerRefused, Permanent, Retryable, UnreadableAnswer
from imgpipe_orchestration.imaging.reading.parts import is_whole
from imgpipe_orchestration.partners.fetch import DOWNLOAD, Fetcher
from imgpipe_orchestration.partners.json_text import fitting, problem_in, values_in
from imgpipe_orchestration.partners.openai_answers import OPENAI, attribute, expect, no_answer, translating, usage_of
from imgpipe_orchestration.partners.reply import ANSWER_LIMIT
from imgpipe_orchestration.partners.retry import Deadline, RetryPolicy, call, gate
from imgpipe_orchestration.partners.ssrf import Guard
from imgpipe_orchestration.partners.usage import Priced, Usage, charged

if TYPE_CHECKING:
    from collections.abc import Callable

    import openai

Schema = TypeVar("Schema", bound=BaseModel)
Result = TypeVar("Result")

_OF_ONE_LENGTH = re.compile("not support[^.]{0,40}(matryoshka|dimensions)|dimensions[^.]{0,20}not support")
"""How vLLM, LiteLLM and OpenAI say that a model's vectors have no other length than its own."""


@dataclass(frozen=True, slots=True)
class Query(Generic[Schema]):
    """What is asked of a model, about an image if there is one.

    Args:
        schema: of the answer; a Pydantic model whose fields are all required (OpenAI's strict mode).
        image: a JPEG, sent as a data URL.
        detail: "low" (a fixed few tokens), "high" or "auto".
    """

    prompt: str
    schema: type[Schema]
    image: bytes | None = None
    detail: str = "low"
    instructions: str | None = None

    def body(self, model: str) -> dict[str, Any]:
        """The body of the request, also of one in a batch."""
        schema = closed(json_schema(self.schema))
        form = {"type": "json_schema", "name": self.schema.__name__, "strict": True, "schema": schema}
        content: list[Any] = [{"type": "input_text", "text": self.prompt}]
        if self.image is not None:
            content.append({"type": "input_image", "image_url": data_url(self.image), "detail": self.detail})
        asked: dict[str, Any] = {"model": model, "text": {"format": form}}
        # Unless told not to, the provider stores requests with users' pictures for 30 days.
        asked |= {"store": False, "input": [{"role": "user", "content": content}]}
        return asked | ({"instructions": self.instructions} if self.instructions else {})


class OpenAIClient:
    """Client of one OpenAI account; thread-safe. All methods raise as `openai_answers.translating`, too."""

    def __init__(
        self,
        api_key: str,
        *,
        base_url: str = "https://api.openai.com/v1",
        timeout: float = 60.0,
        policy: RetryPolicy | None = None,
        fetcher: Fetcher | None = None,
        name: str = OPENAI,
    ) -> None:
        """
        Args:
            name: what errors call the server.
            timeout: seconds for one try.
            fetcher: downloads pictures that the answer only links to; by default it refuses private addresses.
        """
        self._fetcher = fetcher or Fetcher(Guard())
        self._api_key = api_key
        self.name = name
        self._base_url = base_url
        self._timeout = timeout
        self._policy = policy or RetryPolicy(budget=2 * timeout)
        self._of_one_length: set[str] = set()

    def answer(self, query: Query[Schema], *, model: str) -> Priced[Schema]:
        """Ask a model; `raw` is the whole response.

        Raises:
            PartnerRefused: the model refused.
        """
        body = query.body(model)
        response = self.call(model, lambda sdk: sdk.responses.create(**body))
        return translating(lambda: _seen(response, query.schema, model, self.name), self.name)

    def embed(self, text: str, *, model: str, dimensions: int | None = None) -> Priced[list[float]]:
        """The embedding of one text, a unit vector. Some models have it in another length than `dimensions`."""
        asked: dict[str, Any] = {"dimensions": dimensions} if dimensions and model not in self._of_one_length else {}
        try:
            response = self.call(model, lambda sdk: sdk.embeddings.create(model=model, input=text, **asked))
        except PartnerRefused as error:
            if not asked or not _OF_ONE_LENGTH.search(error.detail or ""):
                raise
            self._of_one_length.add(model)
            return self.embed(text, model=model)
        return _embedded(response, model, self.name)

    def draw(
        self, prompt: str, image: bytes | None = None, *, model: str, size: str = "1024x1024", quality: str = "auto"
    ) -> Priced[bytes]:
        """Draw an image from text, and from a reference image (PNG) if one is given; it is encoded, mostly as PNG.

        Args:
            size: "WxH" or "auto"; which sizes there are depends on the model.

        Raises:
            PartnerRefused: no image in the answer, or only a link to none.
            UnreadableAnswer: the image data is truncated.
        """
        asked: dict[str, Any] = {"model": model, "prompt": prompt, "n": 1, "size": size, "quality": quality}
        if image is None:
            return self._drawn(self.call(model, lambda sdk: sdk.images.generate(**asked)), model)
        file = ("image.png", image, "image/png")
        return self._drawn(self.call(model, lambda sdk: sdk.images.edit(image=file, **asked)), model)

    def judge(self, what: bytes | str, *, model: str) -> Priced[dict[str, float]]:
        """Have a JPEG or a text moderated, which costs nothing: scores of 0 to 1 by the endpoint's categories.

        https://platform.openai.com/docs/api-reference/moderations

        Raises:
            UnreadableAnswer: no scores in it, or one that cannot be compared with a threshold.
        """
        asked: Any = what
        if isinstance(what, bytes):
            asked = [{"type": "image_url", "image_url": {"url": data_url(what)}}]
        answer: Any = self.call(
            model, lambda sdk: sdk.moderations.create(model=model, input=asked).to_dict(warnings=False)
        )
        given = translating(lambda: dict(answer["results"][0]["category_scores"]), self.name)
        scores = {}
        for name, score in given.items():
            if not isinstance(score, int | float) or not 0 <= score < 1.001:  # a rounded float may be just over 1
                problem = f"{self.name} gave {name!s:.40} a score that is no number from 0 to 1"
                raise UnreadableAnswer(problem, detail=str(answer)[:500])
            scores[str(name)] = min(float(score), 1.0)
        if not scores:
            raise UnreadableAnswer(f"{self.name} answered without scores", detail=str(answer)[:500])
        named = answer.get("model")
        return Priced(scores, Usage(model=named if isinstance(named, str) and len(named) <= 200 else model, units=1))

    def models(self) -> set[str]:
        """Model names of this account."""
        page = self.call("", lambda sdk: sdk.models.list())
        return {str(attribute(model, "id")) for model in expect(page, "data", list, self.name)}

    def close(self) -> None:
        """Close the connections."""
        if sdk := self.__dict__.pop("_sdk", None):
            sdk.close()

    def batched_answer(self, body: dict[str, Any], schema: type[Schema], model: str) -> Priced[Schema]:
        """What `answer` would return for this body of an answer; raises the same over it."""
        from openai.types.responses import Response

        return translating(lambda: _seen(Response.construct(**body), schema, model, self.name), self.name)

    def batched_embedding(self, body: dict[str, Any], model: str) -> Priced[list[float]]:
        """As `batched_answer`, for `embed`."""
        from openai.types import CreateEmbeddingResponse

        return translating(lambda: _embedded(CreateEmbeddingResponse.construct(**body), model, self.name), self.name)

    def batched_drawing(self, body: dict[str, Any], model: str) -> Priced[bytes]:
        """As `batched_answer`, for `draw`."""
        from openai.types import ImagesResponse

        return translating(lambda: self._drawn(ImagesResponse.construct(**body), model), self.name)

    def _drawn(self, response: Any, model: str) -> Priced[bytes]:
        usage = usage_of(response, model)
        with charged(usage):
            data = expect(response, "data", list, self.name)
            first = data[0] if data else None
            image = self._decoded(attribute(first, "b64_json")) or self._fetched(attribute(first, "url"))
            if image is None:
                # Permanent, because such an answer was paid for and the next one would be the same.
                raise PartnerRefused(f"{self.name} answered with neither an image nor the address of one")
        return Priced(image, usage)

    def _decoded(self, encoded: Any) -> bytes | None:
        if not isinstance(encoded, str) or not encoded:
            return None
        try:
            # Other servers with OpenAI's protocol send data URLs (Base64 itself has no comma) and line breaks.
            image = base64.b64decode("".join(encoded.rpartition(",")[2].split()), validate=True)
        except ValueError as error:
            raise UnreadableAnswer(f"{self.name} sent image data that is cut off or not base64") from error
        if not is_whole(image):
            raise UnreadableAnswer(f"{self.name} sent an image that is cut off or in an unknown format")
        return image

    def _fetched(self, url: Any) -> bytes | None:
        """The picture at the URL in an answer (DALL-E's form, still used by other servers with OpenAI's protocol).

        Raises:
            PartnerRefused: it cannot be fetched. Without a status, because the file host's is not about our credential.
        """
        if not isinstance(url, str) or not url:
            return None
        if url[:5].lower() == "data:":
            return self._decoded(url)
        policy = replace(DOWNLOAD, budget=self._timeout)
        try:
            image = self._fetcher.fetch_bytes(url, policy, max_bytes=ANSWER_LIMIT)
        except (Permanent, Retryable) as error:
            reason = f"{self.name} gave the address of an image, which cannot be fetched: {error.public}"
            raise PartnerRefused(reason, detail=error.detail) from error
        if not is_whole(image):
            raise PartnerRefused(f"{self.name} gave the address of an image that is cut off or in an unknown format")
        return image

    def call(self, model: str, send: Callable[[openai.OpenAI], Result], *, once: bool = False) -> Result:
        """Send one request with the SDK, retried within the time limit unless it is to be sent `once`; `model` is whose
        rate limit it counts for."""
        from imgpipe_orchestration.partners.openai_sdk import watching

        rate, sdk = gate(OPENAI, self._base_url, self._api_key, model), self._sdk  # before the time begins to run

        def attempt(deadline: Deadline) -> Result:
            rate.enter(deadline, partner=self.name)
            seconds = max(0.001, min(self._timeout, deadline.remaining))
            with watching(rate, Deadline(seconds)):
                return translating(lambda: send(sdk.with_options(timeout=seconds)), self.name)

        return call(attempt, replace(self._policy, attempts=1) if once else self._policy, paid=True)

    @functools.cached_property
    def _sdk(self) -> openai.OpenAI:
        import openai  # takes 0.9 s

        from imgpipe_orchestration.partners.openai_sdk import WatchedTransport

        transport = WatchedTransport(self._base_url, self.name)
        http = openai.DefaultHttpxClient(transport=transport, follow_redirects=False)
        return openai.OpenAI(api_key=self._api_key, base_url=self._base_url, max_retries=0, http_client=http)


def _seen(response: Any, schema: type[Schema], model: str, name: str) -> Priced[Schema]:
    """The answer in a response: JSON, which models on other servers also put into a fence or after a sentence."""
    usage = usage_of(response, model)
    with charged(usage):
        expect(response, "output", list, name)
        text = response.output_text
        try:
            answer = fitting(values_in(text), schema.model_validate)
        except ValueError as error:
            if not text or attribute(response, "status") == "incomplete":
                raise no_answer(response, name) from error
            raise UnreadableAnswer(f"{name} gave an answer that does not fit: {problem_in(error)}") from error
    return Priced(answer, usage, response.to_dict(mode="json", warnings=False))


def _embedded(response: Any, model: str, name: str) -> Priced[list[float]]:
    usage = usage_of(response, model)
    with charged(usage):
        data = expect(response, "data", list, name)
        vector = attribute(data[0], "embedding") if data else None
        try:
            numbers = array("d", vector if isinstance(vector, list) else [])
        except (TypeError, OverflowError):
            numbers = array("d")
        if not numbers:
            raise UnreadableAnswer(f"{name} answered without an embedding")
    return Priced(numbers.tolist(), usage)


def data_url(image: bytes, kind: str = "jpeg") -> str:
    """A picture as OpenAI's protocol takes it."""
    return f"data:image/{kind};base64,{base64.b64encode(image).decode()}"


@functools.cache
def json_schema(schema: type[BaseModel]) -> dict[str, Any]:
    """The JSON schema that a `Query` asks for, part of a call's identity. Pydantic takes 2 ms to make it."""
    return schema.model_json_schema()


def closed(schema: Any) -> Any:
    """The schema as the strict mode wants it: objects with these properties only."""
    if isinstance(schema, list):
        return [closed(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    members = {name: closed(value) for name, value in schema.items()}
    return members | ({"additionalProperties": False} if schema.get("type") == "object" else {})
