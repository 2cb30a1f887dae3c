"""Images that are finished and made again: by a backfill, or because somebody set the focus."""

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import text

from imgpipe_orchestration.media import store
from imgpipe_orchestration.media.intake import due_days
from imgpipe_orchestration.media.model import Step
from imgpipe_orchestration.media.remake import make_analyses, make_variants, order
from imgpipe_orchestration_tests.conftest import StandInAccess
from imgpipe_orchestration_tests.devstack.running import wait_for
from imgpipe_orchestration_tests.locks import waiters
from imgpipe_orchestration_tests.media.conftest import Gateway, picture
from imgpipe_orchestration_tests.media.test_pipeline import assert_nothing_orphaned, make_due
from imgpipe_orchestration_tests.partners.wire import reply, serving


def test_a_backfill_makes_again_what_an_older_recipe_made_and_nothing_else(gateway: Gateway) -> None:
    gateway.finish(1, profile_image=picture(seed=1), header_image=picture(seed=2))
    day = gateway.rows("select upload_day from media_files")[0][0].isoformat()
    assert order(gateway.services, day, Step.RESIZE_OPTIMIZE) == 0
    gateway.rows("update media_files set recipe = 'old' where id = 1")
    gateway.rows("update media_variants set recipe = 'old' where media_id = 1")
    assert order(gateway.services, day, Step.RESIZE_OPTIMIZE) == 1
    assert due_days(gateway.services, limit=5) == [day]
    stage = make_variants(gateway.services, "run-3", day)
    assert [claim.item_id for claim in stage.outcome.done] == [1]
    assert due_days(gateway.services, limit=5) == []
    assert gateway.rows("select count(*) from media_variants where recipe = 'old'")[0][0] == 0
    assert_nothing_orphaned(gateway)


def test_a_focus_set_by_hand_wins_and_the_variants_follow(gateway: Gateway) -> None:
    gateway.finish(1, profile_image=picture(600, 300, seed=4))
    url = f"{gateway.url}/api/media/focus/1"
    wrong = gateway.session.put(url, json={"box": [0.5, 0, 0.2, 1]}, headers=gateway.as_worker, timeout=30)
    assert wrong.status_code == 422
    corners = []
    for box in ([0.0, 0.0, 0.1, 0.1], [0.9, 0.9, 1.0, 1.0]):
        answer = gateway.session.put(url, json={"box": box}, headers=gateway.as_worker, timeout=30)
        assert answer.status_code == 202
        (day,) = due_days(gateway.services, limit=5)
        assert len(make_variants(gateway.services, "run-2", day).outcome.done) == 1
        ((key,),) = gateway.rows("select object_key from media_variants where size = 'thumbnail' and format = 'jpeg'")
        corners.append(gateway.services.media_bucket.get(key))
    assert corners[0] != corners[1]
    assert gateway.rows("select focus ->> 'reason' from media_files")[0][0] == "manual"


def test_a_focus_set_while_the_image_is_being_made_again_is_not_lost(gateway: Gateway) -> None:
    gateway.finish(1, profile_image=picture(600, 300, seed=4))
    url = f"{gateway.url}/api/media/focus/1"
    gateway.session.put(url, json={"box": [0.0, 0.0, 0.1, 0.1]}, headers=gateway.as_worker, timeout=30)
    (day,) = due_days(gateway.services, limit=5)
    with ThreadPoolExecutor(1) as pool, gateway.services.engine.connect() as person:
        focus = {"box": [0.9, 0.9, 1.0, 1.0], "reason": "manual"}
        person.execute(text("update media_files set focus = cast(:focus as jsonb)"), {"focus": json.dumps(focus)})
        run = pool.submit(make_variants, gateway.services, "run-2", day)
        engine = gateway.services.engine
        wait_for(lambda: waiters(engine) or run.done(), "the run to reach the image's row", 30, every=0.02)
        person.commit()
        assert len(run.result(30).outcome.retried) == 1
    assert gateway.rows("select focus -> 'box' from media_files") == [([0.9, 0.9, 1.0, 1.0],)]
    make_due(gateway, "media_remake_variants")
    assert len(make_variants(gateway.services, "run-3", day).outcome.done) == 1
    ((box,),) = gateway.rows("select focus -> 'box' from media_files")
    assert box == pytest.approx([0.9, 0.9, 1.0, 1.0])


def test_an_analysis_ordered_again_is_tried_until_it_is_there_and_then_nothing_is_due(
    seeing_gateway: Gateway, standins: StandInAccess
) -> None:
    gateway = seeing_gateway
    gateway.finish(1, profile_image=picture(300, 200))
    day = gateway.rows("select upload_day::text from media_files")[0][0]
    assert order(gateway.services, day, Step.AI_VISUAL_ANALYSIS) == 0
    gateway.rows("update media_ai_analysis set version = 'old'")
    gateway.rows("delete from paid_call_uses")
    gateway.rows("delete from paid_calls")
    standins.fault("openai", "content_policy", count=None)
    assert order(gateway.services, day, Step.AI_VISUAL_ANALYSIS) == 1
    assert list(make_analyses(gateway.services, "run-2", day).outcome.failed) == [1]
    assert due_days(gateway.services, limit=5) == [], "what failed for good is a dead letter and asks for no run"
    standins.admin("DELETE", "faults")
    assert gateway.services.claims.requeue(store.REMAKE_ANALYSIS) == [1]
    assert due_days(gateway.services, limit=5) == [day]
    assert len(make_analyses(gateway.services, "run-3", day).outcome.done) == 1
    assert due_days(gateway.services, limit=5) == []


def test_a_backfill_that_is_not_urgent_has_its_answers_from_batches_at_half_the_price(
    seeing_gateway: Gateway, standins: StandInAccess
) -> None:
    gateway = seeing_gateway
    gateway.finish(1, profile_image=picture(300, 200))
    spent = "select sum(cost_usd) from paid_call_uses where provider = 'openai' and outcome = 'bought'"
    ((full,),) = gateway.rows(spent)
    (before,) = gateway.rows("select day_of.upload_day::text, a.alt_text from media_files day_of, media_ai_analysis a")
    gateway.rows("update media_ai_analysis set version = 'old', alt_text = ''")
    gateway.rows("delete from paid_call_uses")
    gateway.rows("delete from paid_calls")
    standins.admin("POST", "delays", {"openai.batch_work": 0.5})
    standins.admin("DELETE", "calls")
    day = before[0]
    assert order(gateway.services, day, Step.AI_VISUAL_ANALYSIS, urgent=False) == 1
    assert list(make_analyses(gateway.services, "run-2", day).outcome.retried) == [1]

    def made() -> bool:
        make_due(gateway, "media_unhurried_analysis")
        return bool(make_analyses(gateway.services, "run-3", day).outcome.done)

    wait_for(made, "the batches to end", 30, every=0.2)
    ((half, whole),) = gateway.rows(f"{spent.replace('(cost_usd)', '(cost_usd), bool_and(half_price)')}")
    assert whole and 0.48 < half / full < 0.52
    assert len(standins.calls("openai", "batches")) == 2, "a description and a vector"
    assert gateway.rows("select alt_text from media_ai_analysis") == [(before[1],)]
    assert due_days(gateway.services, limit=5) == []


@pytest.mark.parametrize("operation", ["responses", "embeddings"])
def test_a_backfill_heals_an_analysis_that_had_failed_and_reports_it(
    make_gateway: Callable[..., Gateway], standins: StandInAccess, operation: str
) -> None:
    state = "select ai_visual_analysis from processing_checklist"
    with serving(lambda handler, _: reply(handler, b'{"success": true}')) as main_api:
        gateway = make_gateway(
            main_api_url=main_api.url, openai_api_key=f"backfill-{operation}", openai_base_url=standins.openai_url
        )
        standins.fault("openai", "wrong_shape", operation=operation, count=None)
        gateway.finish(1, profile_image=picture(300, 200))
        day = gateway.rows("select upload_day::text from media_files")[0][0]
        assert gateway.rows(state) == [("failed",)]
        standins.admin("DELETE", "faults")
        assert order(gateway.services, day, Step.AI_VISUAL_ANALYSIS) == 1
        assert len(make_analyses(gateway.services, "run-2", day).outcome.done) == 1
        assert gateway.rows(state) == [("completed",)]
        assert order(gateway.services, day, Step.AI_VISUAL_ANALYSIS) == 0
        make_due(gateway, "media_healing")
        gateway.run_due("run-3")
    first, *_, healed = (json.loads(body)["ai_analysis"]["providers"] for _, _, body in main_api.requests)
    assert first["openai_embedding"] != "ok"
    assert healed == {"google_vision": "absent", "openai_vision": "ok", "openai_embedding": "ok"}
