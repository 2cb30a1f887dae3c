"""Vectors of another model: made beside the old ones, which the search uses until all are there."""

import json
import math
from datetime import date
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event, text

from imgpipe_orchestration.errors import BadInput, Conflict, PartnerRefused, PartnerStumbled, Retryable, SpendingPaused
from imgpipe_orchestration.media import embedding, store
from imgpipe_orchestration.media.embedding import _LOCK, rebuild, vector_of
from imgpipe_orchestration.media.model import Step
from imgpipe_orchestration.media.remake import estimate, make_analyses, order
from imgpipe_orchestration.storage.rows import transaction
from imgpipe_orchestration.wiring.services import Services
from imgpipe_orchestration_tests.cli.conftest import Run, run
from imgpipe_orchestration_tests.conftest import StandInAccess
from imgpipe_orchestration_tests.media import worker
from imgpipe_orchestration_tests.media.conftest import Gateway, picture
from imgpipe_orchestration_tests.media.worker import today
from imgpipe_orchestration_tests.partners.wire import pass_on, reply, serving

__all__ = ["run"]


LARGE = 'use = ["other:text-embedding-3-large"]\ndimensions = 512'


def with_models(gateway: Gateway, folder: Path, embed: str, other: str = "") -> Services:
    """The gateway's services after MODELS_FILE has changed."""
    path = folder / "models.toml"
    path.write_text(f'''
[providers.other]
dialect = "openai-chat"
base_url = "{other or "http://127.0.0.1:9"}"
[tasks.embed]
{embed}
''')
    return gateway.changed(models_file=str(path))


def with_zebras(gateway: Gateway) -> Gateway:
    """The gateway with four images, which show zebra1 to zebra4."""
    for user in range(1, 5):
        gateway.upload(user, profile_image=picture(seed=190 + user))
    gateway.run_due()
    gateway.rows("update media_ai_analysis set alt_text = 'zebra' || media_id")
    return gateway


def found_by_meaning(gateway: Gateway, words: str) -> list[str]:
    answer = gateway.get(f"/api/media/search?text={words}", **gateway.as_worker).json()
    assert answer["note"] == ""
    return [hit["media_id"] for hit in answer["images"] if "meaning" in hit["why"]]


def test_the_search_goes_on_while_the_vectors_are_made_anew_and_a_rebuild_that_stops_goes_on(
    seeing_gateway: Gateway, standins: StandInAccess, tmp_path: Path
) -> None:
    gateway = seeing_gateway
    for seed in range(3):
        gateway.upload(seed + 1, profile_image=picture(seed=90 + seed))
    gateway.run_due()
    (alt,) = gateway.rows("select alt_text from media_ai_analysis order by media_id limit 1")
    before = found_by_meaning(gateway, alt.alt_text)
    assert before
    bought: list[int] = []
    breaks = [True]

    def other(handler: BaseHTTPRequestHandler, number: int) -> None:
        if breaks[0] and number >= 1:
            reply(handler, b'{"error": {"message": "no", "code": "insufficient_quota"}}', 429)
            return
        bought.append(number)
        pass_on(handler, standins.openai_url)

    with serving(other) as server:
        services = with_models(gateway, tmp_path, LARGE, server.url)
        with pytest.raises(Retryable, match="quota"):
            rebuild(services)
        assert found_by_meaning(gateway, alt.alt_text) == before, "with the old vectors, of a gateway as it was"
        vector, note = vector_of(services, alt.alt_text)
        assert vector is not None and len(vector) == 1536 and note == "", "and of one that knows of the new model"
        gateway.upload(4, profile_image=picture(seed=94))
        gateway.run_due("run-2")  # an image that comes meanwhile
        breaks[0] = False
        services.ledger.resume()
        told: list[tuple[int, int]] = []
        assert rebuild(services, told=lambda done, of: told.append((done, of)))[0] >= 3
        assert told[-1] == (4, 4)
        assert len(bought) == 4, "each vector was bought once"
        dimensions = gateway.rows("select distinct vector_dims(embedding) from media_ai_analysis")
        assert [row[0] for row in dimensions] == [512]
        assert rebuild(services) == (0, {})
        vector, _ = vector_of(services, alt.alt_text)
        assert vector is not None and len(vector) == 512
    indexes = gateway.rows("select indexdef from pg_indexes where indexname like 'media_ai_analysis_meaning%'")
    assert len(indexes) == 1 and "hnsw (embedding " in indexes[0].indexdef


def test_an_analysis_that_ends_after_the_rebuild_keeps_the_new_vector(
    seeing_gateway: Gateway, standins: StandInAccess, tmp_path: Path
) -> None:
    gateway = seeing_gateway
    gateway.finish(1, profile_image=picture(seed=95))
    (old,) = gateway.rows("select embedding::text as vector, answered_by, providers from media_ai_analysis")
    services = with_models(gateway, tmp_path, LARGE, standins.openai_url)
    assert rebuild(services) == (1, {})
    (new,) = gateway.rows("select embedding::text as vector from media_ai_analysis")
    with services.engine.begin() as connection:
        ended = {"embedding": old.vector, "answered_by": old.answered_by, "providers": old.providers}
        store.save_analysis(connection, 1, ended)
    assert gateway.rows("select embedding::text from media_ai_analysis") == [(new.vector,)]
    gateway.rows("update media_ai_analysis set embedding = null returning 1")  # as if that was its first
    assert order(services, today(), Step.AI_VISUAL_ANALYSIS) == 1
    make_analyses(services, "run-2", today())
    assert gateway.rows("select embedding::text from media_ai_analysis") == [(new.vector,)]


def test_a_backfill_makes_the_vectors_of_images_that_came_while_the_task_was_off(
    seeing_gateway: Gateway, tmp_path: Path
) -> None:
    gateway = seeing_gateway
    for user in (1, 2):
        gateway.upload(user, profile_image=picture(seed=97 + user))
    off = with_models(gateway, tmp_path, "use = []")
    worker.run(off, "run-1", today())
    assert rebuild(gateway.services) == (0, {})
    day = date.fromisoformat(today())
    assert estimate(gateway.services, day, day)["calls"] == {"embedding": 2}
    assert order(gateway.services, today(), Step.AI_VISUAL_ANALYSIS) == 2
    make_analyses(gateway.services, "run-2", today())
    assert gateway.rows("select count(embedding) from media_ai_analysis") == [(2,)]
    assert order(gateway.services, today(), Step.AI_VISUAL_ANALYSIS) == 0


def test_nothing_is_bought_for_the_trash_a_restored_image_gets_its_vector_then_and_the_index_has_all_the_time_it_needs(
    seeing_gateway: Gateway, tmp_path: Path, standins: StandInAccess
) -> None:
    gateway, limits = seeing_gateway, []
    for seed in (96, 97):
        gateway.finish(seed, profile_image=picture(seed=seed))
    path = f"{gateway.url}/api/media/1"
    assert gateway.session.delete(path, headers=gateway.as_user(96), timeout=60).status_code == 202
    services = with_models(gateway, tmp_path, LARGE, standins.openai_url)

    def look(_: Any, cursor: Any, statement: str, *__: Any) -> None:
        if statement.startswith("create index"):
            limits.append(cursor.execute("show statement_timeout").fetchone()[0])

    event.listen(services.engine, "before_cursor_execute", look)
    assert rebuild(services) == (1, {})
    assert limits == ["0"]
    with transaction(services.engine) as connection:
        assert connection.scalar(text("show statement_timeout")) == "1min"
    assert gateway.session.post(f"{path}/restore", headers=gateway.as_user(96), timeout=60).status_code == 200
    make_analyses(services, "run-2", today())
    assert gateway.rows("select vector_dims(embedding) from media_ai_analysis") == [(512,), (512,)]


def test_images_that_the_model_refuses_stay_without_a_vector_and_one_that_refuses_all_or_the_key_stops_the_rebuild(
    seeing_gateway: Gateway, tmp_path: Path, standins: StandInAccess, run: Run
) -> None:
    gateway, refuses = with_zebras(seeing_gateway), [401]

    def other(handler: BaseHTTPRequestHandler, _: int) -> None:
        words = handler.sent.decode()  # type: ignore[attr-defined]  # by `serving`

        def altered(body: bytes) -> bytes:
            answer = json.loads(body)
            answer["data"][0]["embedding"] = [0.5] * 9 if "zebra2" in words else [math.nan] * 512
            return json.dumps(answer).encode()

        if refuses[0] or "zebra1" in words:
            reply(handler, b'{"error": {"message": "no"}}', refuses[0] or 400)
        elif "zebra2" in words or "zebra3" in words:
            pass_on(handler, standins.openai_url, altered)
        else:
            pass_on(handler, standins.openai_url)

    with serving(other) as server:
        services = with_models(gateway, tmp_path, LARGE, server.url)
        with pytest.raises(SpendingPaused, match="401"):
            rebuild(services)
        services.ledger.resume()
        refuses[0] = 400
        with pytest.raises(PartnerRefused, match="400"):
            rebuild(services)
        refuses[0] = 0
        said = run("embeddings", "rebuild", MODELS_FILE=services.settings.models_file)
        assert said.exit_code == 0, said.output
        assert "Vectors made: 1. " in said.output and "Images without a vector (3): 1 (other refused" in said.output
        assert "), 2 (text-embedding-3-large answered with 9 numbers instead of 512), 3 (" in said.output
        have = gateway.rows("select media_id, vector_dims(embedding) from media_ai_analysis order by 1")
        assert have == [(1, None), (2, None), (3, None), (4, 512)]
        answer = gateway.get("/api/media/search?text=zebra1", **gateway.as_worker).json()
        assert [(one["media_id"], one["why"]) for one in answer["images"]] == [("1", "words")]
        assert order(services, today(), Step.AI_VISUAL_ANALYSIS) == 3, "a backfill asks again"


def test_a_model_that_fails_for_most_images_of_a_batch_stops_the_rebuild_and_they_keep_their_vectors(
    seeing_gateway: Gateway, tmp_path: Path, standins: StandInAccess, monkeypatch: pytest.MonkeyPatch
) -> None:
    gateway = with_zebras(seeing_gateway)
    monkeypatch.setattr(embedding, "_LACKING", embedding._LACKING.replace(f"limit {embedding._BATCH}", "limit 3"))
    monkeypatch.setattr(embedding, "_BATCH", 3)

    def overloaded(handler: BaseHTTPRequestHandler, _: int) -> None:
        words = handler.sent.decode()  # type: ignore[attr-defined]  # by `serving`
        if "zebra1" in words or "zebra2" in words:
            reply(handler, b'{"error": {"message": "llama runner process has terminated"}}', 500)
        else:
            pass_on(handler, standins.openai_url)

    with serving(overloaded) as server:
        services = with_models(gateway, tmp_path, LARGE, server.url)
        with pytest.raises(PartnerStumbled, match="llama runner"):
            rebuild(services)
    have = gateway.rows("select distinct vector_dims(embedding) from media_ai_analysis")
    assert have == [(1536,)], "the search goes on with the old ones"


def test_a_task_that_is_off_and_a_second_rebuild_are_refused(
    seeing_gateway: Gateway, tmp_path: Path, standins: StandInAccess
) -> None:
    off = with_models(seeing_gateway, tmp_path, "use = []")
    with pytest.raises(BadInput, match="MODELS_FILE"):
        rebuild(off)
    services = with_models(seeing_gateway, tmp_path, 'use = ["other:m"]', standins.openai_url)
    with seeing_gateway.services.engine.begin() as connection:
        connection.execute(text("select pg_advisory_xact_lock(:key)"), {"key": _LOCK})
        with pytest.raises(Conflict):
            rebuild(services)
