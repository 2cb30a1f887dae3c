"""What is kept for so many days only, and what a CDN is told."""

import json
from collections.abc import Callable
from typing import Any
from uuid import uuid4

import dagster as dg
import pytest
from sqlalchemy import text

from imgpipe_orchestration import resources
from imgpipe_orchestration.definitions import defs
from imgpipe_orchestration.lifecycle import cdn
from imgpipe_orchestration.listings.runs import Drained, drain, make_again
from imgpipe_orchestration.operations import deletion, sweep
from imgpipe_orchestration.operations.definitions import purge_sensor
from imgpipe_orchestration.storage.rows import transaction
from imgpipe_orchestration_tests.lifecycle.conftest import USER, call, delete, finished, purge
from imgpipe_orchestration_tests.lifecycle.test_people import listing
from imgpipe_orchestration_tests.media.conftest import Gateway
from imgpipe_orchestration_tests.media.worker import today
from imgpipe_orchestration_tests.operations.test_garbage import keys, put
from imgpipe_orchestration_tests.partners.wire import answering


def test_listings_are_kept_for_so_many_days(make_gateway: Callable[..., Gateway]) -> None:
    gateway = make_gateway(listings_keep_days=30)
    old, new, trashed = (listing(gateway, title=f"{title} bowl")["images"][0] for title in ("Old", "New", "Trashed"))
    assert call(gateway, "DELETE", f"/api/listings/images/{trashed['id']}", USER).status_code == 202
    for one in (old, trashed):
        aged = "update image_queue set created_at = now() - interval '31 days' where public_id = :id returning 1"
        gateway.rows(aged, id=one["id"])
    assert purge(gateway)["ordered_expired"] == 2
    shown = {
        one["url"].rpartition("/")[2]: gateway.get("/" + one["url"].split("/", 3)[3]).status_code for one in (old, new)
    }
    assert list(shown.values()) == [410, 200]
    assert len(keys(gateway.services.listings_bucket)) == 1
    assert call(gateway, "POST", f"/api/listings/images/{old['id']}/restore", USER).json()["code"] == "purged"
    assert purge(gateway)["ordered_expired"] == 0


def test_avatars_are_kept_for_so_many_days_after_their_task_ended(make_gateway: Callable[..., Gateway]) -> None:
    gateway = make_gateway(avatars_keep_days=30)
    bucket = gateway.services.avatars_bucket
    ended = [("completed", 31), ("completed", 29), ("pending", None)]
    old, recent, at_work = (task_with_a_person(gateway, status, days) for status, days in ended)
    assert purge(gateway)["purged"] == 1
    assert {key.split("/")[1] for key in keys(bucket)} == {f"task_{recent}", f"task_{at_work}"}
    assert {row.id for row in gateway.rows("select id from generation_tasks")} == {recent, at_work}
    assert not gateway.rows("select from generation_results where task_id = :id", id=old)
    assert sweep.of_everything(gateway.services).clean


def test_the_people_of_failed_and_cancelled_tasks_are_kept_for_a_week_and_the_task_with_its_errors_stays(
    gateway: Gateway,
) -> None:
    ended = [("failed", 8), ("cancelled", 8), ("failed", 6), ("completed", 8)]
    tasks = [task_with_a_person(gateway, status, days) for status, days in ended]
    gateway.rows("update generation_tasks set error_log = 'too blurred' returning 1")
    assert purge(gateway)["ordered_expired"] == 2
    assert {key.split("/")[1] for key in keys(gateway.services.avatars_bucket)} == {f"task_{id_}" for id_ in tasks[2:]}
    assert {row.task_id for row in gateway.rows("select task_id from generation_results")} == set(tasks[2:])
    assert {row.error_log for row in gateway.rows("select error_log from generation_tasks")} == {"too blurred"}
    assert len(gateway.rows("select from generation_tasks")) == 4
    assert sweep.of_everything(gateway.services).clean


def test_reports_and_pictures_are_kept_for_so_many_days_and_until_they_are_delivered(
    make_gateway: Callable[..., Gateway],
) -> None:
    gateway = make_gateway(vision_keep_days=30)
    bucket = gateway.services.vision_bucket
    old, recent, undelivered = (_batch(gateway, days, waits) for days, waits in [(31, False), (29, False), (31, True)])
    gateway.rows("""
        with bought as (insert into paid_calls
            (key, provider, operation, model, input_hash, parameter_hash, state, value, committed_at)
            values ('k', 'openai', 'responses', 'm', 'i', 'p', 'committed', '1', now()))
        insert into paid_call_uses (key, outcome, pipeline, item, provider, operation, model)
        select 'k', 'reused', 'vision_reports', 'vision_batches/' || id || '/0', 'openai', 'responses', 'm'
        from vision_batches where batch_id = any(cast(:shared as uuid[])) returning 1
    """, shared=[old, recent])  # fmt: skip
    assert purge(gateway)["purged"] == 1
    assert gateway.rows("select from paid_calls"), "another report has the same answer"
    kept = {str(row.batch_id) for row in gateway.rows("select batch_id from vision_batches")}
    assert kept == {recent, undelivered}
    assert not any(old in key for key in keys(bucket))
    assert len(keys(bucket)) == 6
    assert sweep.of_everything(gateway.services).clean
    gateway.rows("update vision_batches set finished_at = finished_at - interval '2 days' returning 1")
    assert purge(gateway)["purged"] == 1
    assert not gateway.rows("select from paid_calls")
    assert sweep.of_everything(gateway.services).clean


def test_nothing_ages_where_no_days_are_set(gateway: Gateway) -> None:
    task_with_a_person(gateway, "completed", 10_000), _batch(gateway, 10_000, waits=False)
    assert purge(gateway)["purged"] == 0


def test_every_answer_about_an_image_has_its_tag_and_the_cdn_is_told_of_changes(
    make_gateway: Callable[..., Gateway],
) -> None:
    with answering({}) as server:
        gateway = make_gateway(cdn_purge="webhook", cdn_purge_url=server.url)
        media_id = finished(gateway)

        def has_tag(path: str, status: int, tag: str) -> bool:
            answer = gateway.get(path)
            assert answer.status_code == status, path
            return (answer.headers.get("Cache-Tag"), answer.headers.get("Surrogate-Key")) == (tag, tag)

        for shown in (
            f"/serve/{media_id}",
            f"/api/images/{media_id}",
            f"/picture/{media_id}",
            f"/api/images/{media_id}/info",
        ):
            assert has_tag(shown, 200, f"media-{media_id}"), shown
        assert has_tag("/serve/999", 404, "media-999")

        def told(path: str = "") -> list[str]:
            before = len(server.requests)
            gateway.services.claims.hasten(cdn.CDN_PURGES)
            purge(gateway, f"purge-{before}-{path}")
            return [tag for _, _, body in server.requests[before:] for tag in json.loads(body)["tags"]]

        told()
        call(gateway, "PUT", f"/api/media/{media_id}/privacy", USER, json={"private": True})
        assert told() == [f"media-{media_id}"]
        delete(gateway, media_id)
        assert told() == [f"media-{media_id}"]
        assert has_tag(f"/serve/{media_id}", 410, f"media-{media_id}")
        old = finished(gateway, field="profile_image", seed=2)
        told()
        finished(gateway, field="profile_image", seed=3)
        assert f"media-{old}" in told()
        (image,) = listing(gateway)["images"]
        drain(gateway.services, "run-1", Drained())
        make_again(gateway.services, "run-2", today(), Drained())
        assert told() == [], "the same file was made"
        gateway.rows("update image_queue set webp_sha256 = 'of other steps' returning 1")
        make_again(gateway.services, "run-3", today(), Drained())
        assert [tag.partition("-")[0] for tag in told()] == ["listing"]
        call(gateway, "DELETE", f"/api/listings/images/{image['id']}", USER)
        assert [tag.partition("-")[0] for tag in told()] == ["listing"]


def test_what_is_to_go_at_once_waits_for_no_sweep_and_its_run_does_not_look_at_what_has_aged(
    gateway: Gateway, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in gateway.settings.environment().items():
        monkeypatch.setenv(name, value)

    def ran(**asked_for: Any) -> tuple[dict[str, Any], int]:
        around = {"backends": resources.BackendsResource(), "io_manager": dg.mem_io_manager}
        job = defs.resolve_job_def("purge")
        if asked_for:
            selected = set(asked_for.pop("asset_selection"))
            job = job.get_subset(asset_selection=selected, asset_check_selection=set())
        done = job.execute_in_process(instance=instance, resources=around, **asked_for)
        (made,) = done.get_asset_materialization_events()
        return dict(made.step_materialization_data.materialization.metadata), len(done.get_asset_check_evaluations())

    def asked() -> list[dg.RunRequest]:
        with dg.build_sensor_context(instance, resources={"sensor_backends": resources.BackendsResource()}) as context:
            return list(purge_sensor(context).run_requests or [])

    delete(gateway, finished(gateway), purge="true")
    job = defs.resolve_job_def("purge")
    earlier = instance.create_run_for_job(job, tags=job.run_tags, status=dg.DagsterRunStatus.STARTING)
    instance.report_dagster_event(dg.DagsterEvent("PIPELINE_START", "purge"), earlier.run_id)
    assert not asked()
    monkeypatch.setattr(deletion, "BUSY_SECONDS", 0.0)
    (request,) = asked()
    assert request.asset_check_keys == []
    figures, checks = ran(asset_selection=request.asset_selection, tags=request.tags)
    assert (figures["purged"].value, "ordered_trash" in figures, checks) == (1, False, 0)
    figures, checks = ran()
    assert ("ordered_trash" in figures, checks) == (True, 1)


def test_a_cdn_that_stays_away_is_among_the_failures(make_gateway: Callable[..., Gateway]) -> None:
    with answering({}, 404) as server:
        gateway = make_gateway(cdn_purge="webhook", cdn_purge_url=server.url)
        delete(gateway, finished(gateway))
        gateway.services.claims.hasten(cdn.CDN_PURGES)
        purge(gateway)
    letters = gateway.services.claims.failures(cdn.CDN_PURGES)
    assert letters and all("404" in (letter.error or "") for letter in letters)
    page = call(gateway, "GET", "/failures?queue=cdn_purges")
    assert page.status_code == 200 and "CDN" in page.text


def task_with_a_person(gateway: Gateway, status: str, days: int | None) -> int:
    """A task that ended so many days ago, with a person and a picture."""
    with transaction(gateway.services.engine) as connection:
        task = connection.scalar(_TASK, {"status": status, "days": days})
        person = connection.scalar(_PERSON, {"task": task})
    put(gateway.services.avatars_bucket, f"avatars/task_{task}/persona_{person}/base.webp")
    return int(task or 0)


def _batch(gateway: Gateway, days: int, waits: bool) -> str:
    """A finished batch with a picture, its view and the report; `waits` for its delivery."""
    picture = str(uuid4())
    with transaction(gateway.services.engine) as connection:
        row = connection.execute(_BATCH, {"days": days}).one()
        connection.execute(_PICTURE, {"batch": row.id, "image": picture, "key": f"images/{picture}.jpg"})
        if waits:
            connection.execute(_WAITS, {"batch": str(row.batch_id)})
    put(
        gateway.services.vision_bucket,
        f"images/{picture}.jpg",
        f"reports/{row.batch_id}.html",
        f"views/{row.batch_id}/0.jpg",
    )
    return str(row.batch_id)


_TASK = text("""
    insert into generation_tasks (status, persona_count, brief, language, style, seed, finished_at)
    values (:status, 1, '', 'English', '', 1, now() - make_interval(days => :days)) returning id
""")
_PERSON = text("insert into generation_results (task_id, position) values (:task, 0) returning id")
_BATCH = text("""
    insert into vision_batches (organization_id, user_query, model, status, finished_at, report_key)
    values ('o', 'q', 'm', 'completed', now() - make_interval(days => :days), 'r') returning id, batch_id
""")
_PICTURE = text("""
    with upload as (
        insert into vision_uploads (image_id, organization_id, name, object_key, bytes, width, height, format)
        values (cast(:image as uuid), 'o', 'n', :key, 1, 1, 1, 'JPEG') returning image_id
    )
    insert into vision_batch_images (batch_id, position, image_id) select :batch, 0, image_id from upload
""")
_WAITS = text("""
    insert into vision_analyses
        (source, organization_id, vision_analysis_id, created_day, documents, status, batch_id)
    values ('s', 'o', 'v', current_date, '', 'submitted', :batch)
""")
