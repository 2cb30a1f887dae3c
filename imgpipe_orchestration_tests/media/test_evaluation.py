"""Models over a set of pictures: what holds is counted, what cannot be read is refused, the check is red or green."""

import json
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from imgpipe_orchestration.errors import BadInput
from imgpipe_orchestration.media.assets import model_evaluation
from imgpipe_orchestration.media.evaluation import OWN_SET, evaluate, page
from imgpipe_orchestration.resources import BackendsResource
from imgpipe_orchestration.wiring.services import Services
from imgpipe_orchestration_tests.cli.conftest import Run, run
from imgpipe_orchestration_tests.media.conftest import picture
from imgpipe_orchestration_tests.partners.wire import Server, answering

__all__ = ["run"]


def saying(**fields: Any) -> AbstractContextManager[Server]:
    """A model that says the same of each picture."""
    told = {"style": "oil", "medium": "oil", "subject": "a cat", "quality_score": 60, "mood_keywords": ["calm"]}
    told |= {"alt_text": "A <b>Cat</b>", "confidence": 0.5, "brand_name": None, "trademark_hint": None, **fields}
    content = {"type": "output_text", "text": json.dumps(told), "annotations": []}
    message = {"type": "message", "content": [content]}
    usage = {"input_tokens": 1000, "output_tokens": 100, "total_tokens": 1100}
    body = {"id": "r", "object": "response", "model": "gpt-6-luna", "status": "completed", "output": [message]}
    return answering(body | {"usage": usage})


def a_set(folder: Path, *lines: dict[str, Any]) -> Path:
    (folder / "cat.jpg").write_bytes(picture(seed=71))
    (folder / "expected.jsonl").write_text("\n".join(json.dumps(line) for line in lines))
    return folder


LINE = {"image": "cat.jpg", "kind": "product", "expect": {"alt_text": {"contains": ["kitten", "cat"]}}}


def test_what_holds_is_counted_and_priced_and_an_answer_is_bought_once(make_gateway: Any, tmp_path: Path) -> None:
    expect = {
        "alt_text": {"contains": ["cat"]},
        "quality_score": {"within": [70, 100]},
        "mood_keywords": {"in": ["Calm"]},
    }
    with saying() as server:
        gateway = make_gateway(openai_api_key="evaluation", openai_base_url=server.url)
        services = gateway.services
        folder = a_set(tmp_path, {**LINE, "expect": expect})
        for again in (False, True):
            (found,) = evaluate(services, folder, services.models.choices("describe"), services.prompts["describe"])
            assert (found.schema_kept, found.answers[0].wrong) == (1.0, ["quality_score"])
            assert found.fields_right == pytest.approx(2 / 3)
            # 1,000 tokens in at 0.10 and 100 out at 0.50 USD a million, a thousand times.
            assert float(found.usd_per_thousand or 0) == pytest.approx(0.15)
            assert (found.seconds(0.5) is None) is again
        assert len(server.requests) == 1
        assert [line["name"] for line in gateway.get("/api/spending?by=task").json()["lines"]] == ["describe"]
    html = page([found])
    assert "quality_score (wrong)" in html and "0.15" in html
    assert "&lt;b&gt;Cat" in html, "what a model writes is text"


def test_a_model_that_fails_has_nothing_right(make_gateway: Any, tmp_path: Path) -> None:
    with answering({}, 400) as server:
        services = make_gateway(openai_api_key="failing", openai_base_url=server.url).services
        choices = services.models.choices("describe")
        (found,) = evaluate(services, a_set(tmp_path, LINE), choices, services.prompts["describe"])
    assert (found.schema_kept, found.fields_right, found.usd_per_thousand) == (0.0, 0.0, None)
    assert "refused" in page([found])


def test_the_command_prints_the_figures_and_writes_the_page(run: Run, tmp_path: Path) -> None:
    html = tmp_path / "page.html"
    words = ["evaluate", "describe", "--set", str(a_set(tmp_path, LINE)), "--html", str(html), "--models"]
    with saying() as server:
        partner = {"OPENAI_API_KEY": "cli-key", "OPENAI_BASE_URL": server.url}
        outcome = run(*words, "openai:gpt-6-sol", **partner)
        assert outcome.exit_code == 0, outcome.output
        assert "openai:gpt-6-sol: schema kept 100%, fields right 100%" in outcome.output
        assert "Cat" in html.read_text()
        refused = run(*words, "cloud:x", **partner)
    assert isinstance(refused.exception, BadInput)


def test_a_set_that_cannot_be_used_is_refused_with_its_place(services: Services, tmp_path: Path) -> None:
    for line, told in (
        ({**LINE, "expect": {"price": {"contains": ["1"]}}}, "no field 'price'"),
        ({**LINE, "kind": "poster"}, "unknown kind 'poster'"),
        ({**LINE, "image": "dog.jpg"}, "no picture dog.jpg"),
        ({**LINE, "expect": {"alt_text": {"near": "cat"}}}, "expect.alt_text.near"),
    ):
        with pytest.raises(BadInput, match=rf"expected\.jsonl: .*{told}"):
            evaluate(services, a_set(tmp_path, line), [], services.prompts["describe"])
    file = a_set(tmp_path, LINE) / "expected.jsonl"
    file.write_text(file.read_text(), encoding="utf-16")  # as a spreadsheet may save it
    with pytest.raises(BadInput, match="is not an evaluation set"):
        evaluate(services, tmp_path, [], services.prompts["describe"])


def test_the_assets_check_is_red_below_the_least_and_green_above(
    make_gateway: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert len((OWN_SET / "expected.jsonl").read_text().splitlines()) == 12
    right = "a cat kitten coffee astronaut galaxy retina camera brick grass gravel logo nordlicht ember tideline"
    for brand, passed in ((right, True), ("nobody", False)):
        said = saying(
            alt_text=right if passed else "x", subject=right if passed else "x", brand_name=brand, style="photo"
        )
        with said as server:
            settings = make_gateway(openai_api_key=f"asset-{passed}", openai_base_url=server.url).settings
            # What one model said is in the ledger.
            for name, value in {**settings.environment(), "OPENAI_VISION_MODEL": f"model-{passed}"}.items():
                monkeypatch.setenv(name, value)
            with dg.DagsterInstance.ephemeral() as instance:
                outcome = dg.materialize(
                    [model_evaluation], resources={"backends": BackendsResource()}, instance=instance
                )
            (check,) = outcome.get_asset_check_evaluations()
        assert check.passed is passed
        assert len(str(check.metadata["fields_right"].value)) <= 5, "it is read in an alert"
