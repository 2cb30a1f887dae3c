"""What a call costs."""

from decimal import Decimal

import pytest

from imgpipe_orchestration.billing.prices import PRICES, cost_of, parse_prices
from imgpipe_orchestration.errors import SettingsError
from imgpipe_orchestration.partners.usage import Usage
from imgpipe_orchestration.settings import Settings


def test_input_cached_input_images_and_output_have_their_own_prices() -> None:
    seen = Usage(input_tokens=1_000_000, cached_tokens=400_000, output_tokens=100_000)
    assert cost_of("gpt-6-luna", seen) == Decimal("0.06") + Decimal("0.004") + Decimal("0.05")
    drawn = Usage(input_tokens=1_000_000, input_image_tokens=1_000_000, output_tokens=1_000_000)
    assert cost_of("gpt-image-2.5-flare", drawn) == 8 + 30
    assert cost_of("vision-v1", Usage(units=6.5)) == Decimal("0.00975")


def test_cached_images_are_not_charged_twice() -> None:
    def cost(**tokens: int) -> Decimal:
        found = cost_of("gpt-image-2.5-flare", Usage(input_tokens=1000, input_image_tokens=900, **tokens))
        assert found is not None
        return found

    costs = [cost(cached_tokens=cached) for cached in (0, 50, 100, 500, 1000)]
    assert costs == sorted(costs, reverse=True)


def test_an_unknown_model_and_an_answer_that_does_not_say_what_it_consumed_cost_an_unknown_sum() -> None:
    assert cost_of("made-up", Usage(input_tokens=5)) is None
    assert cost_of("gpt-image-2.5-flare", Usage(model="gpt-image-2.5-flare")) is None


@pytest.mark.parametrize("name", ["gpt-6-luna-2026-09-22", "gpt-6-luna-standin", "gpt-6-luna-2026-09-22-standin"])
def test_snapshots_and_stand_ins_cost_what_their_model_costs(name: str) -> None:
    usage = Usage(input_tokens=1000)
    assert cost_of(name, usage) == cost_of("gpt-6-luna", usage)


def test_every_default_model_has_a_price() -> None:
    settings = Settings()
    defaults = (settings.openai_vision_model, settings.openai_embedding_model, settings.openai_image_model)
    assert [model for model in defaults if model not in PRICES] == []


def test_prices_can_be_corrected_by_a_setting() -> None:
    prices = {**PRICES, **parse_prices('{"made-up": {"input": 1.5}}')}
    assert cost_of("made-up", Usage(input_tokens=2_000_000), prices) == 3
    assert parse_prices("  ") == {}


@pytest.mark.parametrize("text", ["{", "[]", '{"a": 5}', '{"a": {"inputs": 1}}', '{"a": {"input": "much"}}'])
def test_a_bad_price_setting_names_its_variable(text: str) -> None:
    with pytest.raises(SettingsError, match="MODEL_PRICES"):
        parse_prices(text)
