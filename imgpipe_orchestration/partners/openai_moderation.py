"""OpenAI's moderation endpoint, for a picture or a text. It costs nothing.

https://platform.openai.com/docs/api-reference/moderations
"""

from __future__ import annotations

import base64
import math
from dataclasses import dataclass
from typing import Any

from imgpipe_orchestration.errors import UnreadableAnswer
from imgpipe_orchestration.partners.openai import OpenAIClient
from imgpipe_orchestration.partners.usage import Usage


@dataclass(frozen=True, slots=True)
class Judged:
    """Scores of 0 to 1 by category, as the endpoint names them."""

    scores: dict[str, float]
    usage: Usage


class Moderator(OpenAIClient):
    """Client of the moderation endpoint; thread-safe."""

    def judge(self, what: bytes | str, *, model: str) -> Judged:
        """Judge a JPEG, or a text.

        Raises:
            UnreadableAnswer: no scores in it.
            PartnerRefused, PartnerUnavailable, RateLimited, SpendingPaused: see `openai_errors.translating`.
        """
        asked: Any = what
        if isinstance(what, bytes):
            url = f"data:image/jpeg;base64,{base64.b64encode(what).decode()}"
            asked = [{"type": "image_url", "image_url": {"url": url}}]
        answer = self.call(model, lambda sdk: sdk.moderations.create(model=model, input=asked)).to_dict()
        results = answer.get("results")
        given = results[0].get("category_scores") if isinstance(results, list) and results else None
        scores = {
            str(name): float(score)
            for name, score in (given.items() if isinstance(given, dict) else ())
            if isinstance(score, int | float) and math.isfinite(score) and 0 <= score <= 1
        }
        if not scores:
            raise UnreadableAnswer(f"{self.name} answered without scores", detail=str(answer)[:500])
        named = answer.get("model")
        return Judged(scores, Usage(model=named if isinstance(named, str) and len(named) <= 200 else model, units=1))
