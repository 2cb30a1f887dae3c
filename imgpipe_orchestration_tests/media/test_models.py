"""Several models for a task: who is asked after whom, what the row says, and a task that is off."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from imgpipe_orchestration.media import store
from imgpipe_orchestration.media.describing import chosen
from imgpipe_orchestration.media.intake import due_days
from imgpipe_orchestration.media.model import Step
from imgpipe_orchestration.media.remake import make_analyses, order
from imgpipe_orchestration.prompts import library
from imgpipe_orchestration.storage.claims import Item
from imgpipe_orchestration.storage.rows import transaction
from imgpipe_orchestration_tests.cli.conftest import Run, run
from imgpipe_orchestration_tests.conftest import StandInAccess
from imgpipe_orchestration_tests.media.conftest import Gateway, picture
from imgpipe_orchestration_tests.media.worker import today
from imgpipe_orchestration_tests.partners.wire import answering, reply, serving

__all__ = ["run"]


def models_file(folder: Path, standins: StandInAccess, first: str, *, describe: str = "") -> str:
    """A file with a provider `first` at an address, and `second`, which is the stand-in and speaks chat."""
    path = folder / "models.toml"
    use = describe or '["first:gpt-6-luna", "second:llava"]'
    path.write_text(f"""
[providers.first]
dialect = "openai-responses"
base_url = "{first}"
[providers.second]
dialect = "openai-chat"
base_url = "{standins.openai_url}"
[tasks.describe]
use = {use}
[tasks.embed]
use = ["second:text-embedding-3-small"]
""")
    return str(path)


def row_of(gateway: Gateway) -> tuple[dict[str, str], dict[str, str]]:
    """The states of the providers, and who answered, of an image that is finished."""
    gateway.finish(1, profile_image=picture())
    assert gateway.rows("select status from media_files") == [("completed",)]
    ((providers, answered),) = gateway.rows("select providers, answered_by from media_ai_analysis")
    return providers, answered


def error(status: int, code: str, message: str = "no") -> tuple[int, bytes]:
    return status, json.dumps({"error": {"message": message, "type": code, "code": code}}).encode()


PASSED_ON = {
    "away": error(503, "server_error"),
    "a wrong key": error(401, "invalid_api_key"),
}


@pytest.mark.parametrize("trouble", PASSED_ON)
def test_what_the_first_model_cannot_do_the_second_does(
    trouble: str, make_gateway: Callable[..., Gateway], standins: StandInAccess, tmp_path: Path
) -> None:
    status, body = PASSED_ON[trouble]
    with answering(body, status) as server:
        gateway = make_gateway(models_file=models_file(tmp_path, standins, server.url))
        providers, answered = row_of(gateway)
        assert len(server.requests) >= 1
    assert providers["openai_vision"] == providers["openai_embedding"] == "ok"
    assert answered == {"describe": "second:llava", "embed": "second:text-embedding-3-small"}
    analysis = gateway.get("/api/media/analysis/1", **gateway.as_worker).json()
    assert analysis["analysis"]["answered_by"] == answered
    assert analysis["standins"] == ["openai_vision", "openai_embedding"]


REFUSALS = {
    "the content": error(400, "content_policy_violation"),
    "nonsense": (200, b'{"output": [{"type": "message", "content": [{"type": "output_text", "text": "eh?"}]}]}'),
}


@pytest.mark.parametrize("refused", REFUSALS)
def test_a_refusal_for_the_content_is_final(
    refused: str, make_gateway: Callable[..., Gateway], standins: StandInAccess, tmp_path: Path
) -> None:
    status, body = REFUSALS[refused]
    with answering(body, status) as server:
        providers, answered = row_of(make_gateway(models_file=models_file(tmp_path, standins, server.url)))
    assert providers["openai_vision"].startswith("failed: first ") and "describe" not in answered
    assert standins.calls("openai", "chat") == []


def test_a_canary_is_asked_as_well_about_its_share_of_new_images_and_changes_nothing(
    make_gateway: Callable[..., Gateway], standins: StandInAccess, tmp_path: Path
) -> None:
    status, body = REFUSALS["the content"]
    with answering(body, status) as server:
        path = models_file(tmp_path, standins, server.url, describe='["second:llava"]')
        canary = '[tasks.describe.canary]\nuse = ["first:bakllava", "second:bakllava"]\nshare = 1.0\n'
        Path(path).write_text(Path(path).read_text() + canary)
        gateway = make_gateway(models_file=path)
        providers, answered = row_of(gateway)
        assert (providers["openai_vision"], answered["describe"]) == ("ok", "second:llava")
        assert due_days(gateway.services, limit=5) == []
        assert [call["model"] for call in standins.calls("openai", "chat")] == ["llava", "bakllava"]
        page = gateway.get("/media/1").text
        assert "first:bakllava" in page and "second:bakllava" in page and "refused for its content policy" in page
    assert [chosen(start + "0" * 56, 0.5) for start in ("7fffffff", "80000000")] == [True, False]


def test_where_another_description_fails_the_vector_of_the_first_one_stays(
    seeing_gateway: Gateway, standins: StandInAccess, tmp_path: Path
) -> None:
    gateway = seeing_gateway
    gateway.finish(1, product_image=picture(seed=83))
    ((before,),) = gateway.rows("select embedding::text from media_ai_analysis")
    status, body = REFUSALS["the content"]
    with answering(body, status) as server:
        path = models_file(tmp_path, standins, server.url, describe='["first:another"]')
        services = gateway.changed(models_file=path)
        with transaction(services.engine) as connection:
            services.claims.enqueue(connection, store.REMAKE_ANALYSIS, [Item(1, "1", today())])
        make_analyses(services, "run-2", today())
    query = "select providers ->> 'openai_vision' like 'failed%', embedding::text from media_ai_analysis"
    assert gateway.rows(query) == [(True, before)]


def test_a_task_that_is_off_is_not_asked(
    make_gateway: Callable[..., Gateway], standins: StandInAccess, tmp_path: Path
) -> None:
    path = models_file(tmp_path, standins, standins.openai_url, describe="[]")
    gateway = make_gateway(models_file=path)
    providers, answered = row_of(gateway)
    assert providers["openai_vision"] == "absent" and answered == {}
    assert standins.calls("openai") == []
    assert order(gateway.services, today(), Step.AI_VISUAL_ANALYSIS) == 0, "nothing was seen, so no vector lacks"


def test_the_check_says_what_each_model_can_do(run: Run, standins: StandInAccess, tmp_path: Path) -> None:
    path = models_file(tmp_path, standins, "http://127.0.0.1:9/v1")
    Path(path).write_text(Path(path).read_text() + '[tasks.describe.canary]\nuse = ["second:bakllava"]\nshare = 1.0\n')
    outcome = run("models", "check", "--json", MODELS_FILE=path)
    assert outcome.exit_code == 1, outcome.output
    found = {one["model"]: one for one in json.loads(outcome.output)}
    assert found["first:gpt-6-luna"]["reached"] == "no" and "reached" in found["first:gpt-6-luna"]["problem"]
    embedding = found["second:text-embedding-3-small"]
    assert [embedding[name] for name in ("reached", "known", "schema", "price")] == ["yes"] * 4
    for model in ("second:llava", "second:bakllava"):
        seen = found[model]
        assert (seen["tasks"], seen["reached"], seen["schema"], seen["price"]) == ("describe", "yes", "yes", "no")


def test_the_check_fails_where_a_picture_is_refused_and_shows_none_to_a_model_that_only_writes(
    run: Run, standins: StandInAccess, tmp_path: Path
) -> None:
    with answering(error(400, "image_unsupported")[1], 400) as server:
        path = models_file(tmp_path, standins, server.url, describe='["first:words"]')
        Path(path).write_text(Path(path).read_text() + '[tasks.persona]\nuse = ["second:writer"]\n')
        outcome = run("models", "check", "--json", MODELS_FILE=path)
    found = {one["model"]: one for one in json.loads(outcome.output)}
    assert found["first:words"]["problem"] and "no" not in found["first:words"].values()
    assert (found["second:writer"]["vision"], found["second:writer"]["schema"]) == ("-", "yes")
    assert outcome.exit_code == 1


def test_the_check_takes_any_answer_of_flowise_but_a_5xx_and_shows_the_whole_problem(run: Run) -> None:
    for status, code in ((404, 0), (503, 1)):
        with serving(lambda h, _, status=status: reply(h, status=status)) as server:
            outcome = run("models", "check", FLOWISE_BASE_URL=server.url)
        assert outcome.exit_code == code, outcome.output
    cells = [line.split("│")[-2] for line in outcome.output.splitlines() if line.startswith("│")]
    problem = "flowise cannot be reached or is down: `imgpipe doctor` says why"
    assert " ".join(" ".join(cells).split()) == f"{problem} {problem}"  # of both flows


def test_a_backfill_after_a_change_of_the_prompt_asks_again_only_about_what_it_concerns(
    seeing_gateway: Gateway, standins: StandInAccess, tmp_path: Path
) -> None:
    gateway = seeing_gateway
    gateway.finish(1, profile_image=picture(seed=81), logo_image=picture(seed=82))
    assert order(gateway.services, today(), Step.AI_VISUAL_ANALYSIS) == 0
    ours = Path(library.__file__).parent / "describe.md"
    (tmp_path / "describe.md").write_text(ours.read_text().replace("This is a business logo.", "This is a logo."))
    services = gateway.changed(prompts_dir=str(tmp_path))
    asked = len(standins.calls("openai", "responses"))
    assert order(services, today(), Step.AI_VISUAL_ANALYSIS) == 1
    make_analyses(services, "run-2", today())
    assert order(services, today(), Step.AI_VISUAL_ANALYSIS) == 0
    assert len(standins.calls("openai", "responses")) == asked + 1
