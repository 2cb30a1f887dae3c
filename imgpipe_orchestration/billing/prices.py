"""The providers' prices, in US dollars.

OpenAI: standard tier per million tokens, short context, from the model's page where there is one, e.g.
https://developers.openai.com/api/docs/models/gpt-6-luna, else from https://developers.openai.com/api/docs/pricing, as
of November 2026. Google Vision: per unit, past the free thousand, up to five million a month
(https://cloud.google.com/vision/pricing). The cost of a model that is not listed is None and shown as unknown, as a
guess would falsify budget and figures. MODEL_PRICES corrects or adds entries without a release.
"""

import re
from collections.abc import Mapping
from decimal import Decimal

from pydantic import BaseModel, ConfigDict, TypeAdapter

from imgpipe_orchestration.errors import SettingsError
from imgpipe_orchestration.partners.usage import Usage

_MILLION = Decimal(1_000_000)
_SNAPSHOT = re.compile(r"-\d{4}-\d{2}-\d{2}$")


class Price(BaseModel):
    """US dollars per million tokens, or per unit. None for cached or image input: the same as `input`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    input: Decimal = Decimal(0)
    cached_input: Decimal | None = None
    image_input: Decimal | None = None
    output: Decimal = Decimal(0)
    unit: Decimal = Decimal(0)


PRICES: Mapping[str, Price] = {
    "gpt-6-luna": Price(input="0.10", cached_input="0.01", output="0.50"),
    "gpt-6-sol": Price(input="2", cached_input="0.20", output="10"),
    "gpt-6.1-sol": Price(input="2", cached_input="0.10", output="10"),
    "gpt-6.1-terra": Price(input="1", cached_input="0.05", output="5"),
    "gpt-5.6-luna": Price(input="0.20", cached_input="0.02", output="1.20"),
    "gpt-5.6-terra": Price(input="2", cached_input="0.20", output="12"),
    "gpt-5-mini": Price(input="0.25", cached_input="0.025", output="2"),
    "gpt-4.1": Price(input="2", cached_input="0.5", output="8"),
    "gpt-4.1-mini": Price(input="0.4", cached_input="0.1", output="1.6"),
    "gpt-4o": Price(input="2.5", cached_input="1.25", output="10"),
    "gpt-4o-mini": Price(input="0.15", cached_input="0.075", output="0.6"),
    "text-embedding-3-small": Price(input="0.02"),
    "text-embedding-3-large": Price(input="0.13"),
    "gpt-image-2": Price(input="5", image_input="8", output="30"),
    "gpt-image-2.5-flare": Price(input="5", image_input="8", output="30"),
    "gpt-image-2.5-sunburst": Price(input="5", image_input="8", output="30"),
    "vision-v1": Price(unit="0.0015"),
    "omni-moderation-latest": Price(),
}


def parse_prices(text: str) -> dict[str, Price]:
    """The value of MODEL_PRICES: a JSON object of model names to the fields of `Price`; may be empty.

    Raises:
        SettingsError: not of that form.
    """
    if not text.strip():
        return {}
    try:
        return TypeAdapter(dict[str, Price]).validate_json(text)
    except ValueError as error:
        raise SettingsError(
            'MODEL_PRICES must look like {"gpt-6-luna": {"input": 0.1, "output": 0.5}}',
            detail=str(error),
        ) from error


def cost_of(model: str, usage: Usage, prices: Mapping[str, Price] = PRICES) -> Decimal | None:
    """US dollars for one call, or None when the model's price or what was consumed is unknown.

    Dated snapshots (`gpt-4o-mini-2024-07-18`) have the price of their model. So do a stand-in's answers, so that a
    rehearsal shows what the real run would cost.
    """
    name = model.removesuffix("-standin")
    price = prices.get(name) or prices.get(_SNAPSHOT.sub("", name))
    if price is None or not (usage.input_tokens or usage.output_tokens or usage.units):
        return None
    text = usage.input_tokens - usage.input_image_tokens
    # Providers do not say of what kind cached tokens are: of text first, so that no image is charged for too little.
    cached_text = min(usage.cached_tokens, max(0, text))
    images = usage.input_image_tokens - min(usage.cached_tokens - cached_text, usage.input_image_tokens)
    per_cached = price.input if price.cached_input is None else price.cached_input
    per_image = price.input if price.image_input is None else price.image_input
    tokens = (
        max(0, text - cached_text) * price.input
        + usage.cached_tokens * per_cached
        + images * per_image
        + usage.output_tokens * price.output
    )
    return tokens / _MILLION + Decimal(str(usage.units)) * price.unit
