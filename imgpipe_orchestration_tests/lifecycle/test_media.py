"""Deleting an image: who may, what is shown, restore, purge, and what is left."""

from collections.abc import Callable

import pytest

from imgpipe_orchestration.billing.calls import Buyer
from imgpipe_orchestration.errors import LeaseLost
from imgpipe_orchestration.identity import audit
from imgpipe_orchestration.media import intake, store
from imgpipe_orchestration.media.model import Step
from imgpipe_orchestration.media.remake import make_analyses, order
from imgpipe_orchestration.operations import sweep
from imgpipe_orchestration.storage.claims import Item
from imgpipe_orchestration.storage.deletions import PURGES
from imgpipe_orchestration.storage.rows import transaction
from imgpipe_orchestration_tests.billing.ledger.shop import Shop, a_call
from imgpipe_orchestration_tests.conftest import StandInAccess
from imgpipe_orchestration_tests.devstack.running import wait_for
from imgpipe_orchestration_tests.lifecycle.conftest import USER, call, delete, finished, keys, purge
from imgpipe_orchestration_tests.media.conftest import Gateway, picture
from imgpipe_orchestration_tests.media.worker import run, today

SHOWN = ("/serve/{}", "/api/images/{}", "/picture/{}", "/api/images/{}/info", "/api/images/{}/analysis")


def gone(gateway: Gateway, path: str, code: str = "deleted") -> bool:
    answer = gateway.get(path, **gateway.as_worker) if path.startswith("/api/media") else gateway.get(path)
    if answer.status_code != 410:
        return False
    assert answer.json()["code"] == code
    assert answer.headers["Cache-Control"] == "no-store"
    return True


def test_a_deleted_image_is_nowhere_any_more_and_restored_it_is_as_before(seeing_gateway: Gateway) -> None:
    gateway = seeing_gateway
    media_id = finished(gateway)
    twin = finished(gateway, seed=1, user=USER)  # the same bytes, so that there is a duplicate
    path = gateway.rows("select image_path from media_files where id = :id", id=media_id)[0].image_path
    before = gateway.get(f"/serve/{media_id}").content
    analysis = gateway.get(f"/api/media/analysis/{media_id}", **gateway.as_worker).json()
    assert gateway.get(f"/api/media/duplicates/{twin}", **gateway.as_worker).json()["identical_bytes"]
    bought = gateway.rows("select count(*) from paid_call_uses where outcome = 'bought'")[0][0]

    answer = delete(gateway, media_id)
    assert answer.status_code == 202
    said = answer.json()
    assert {**said, "deleted_at": "", "purge_after": ""} == {
        "media_id": str(media_id), "state": "trashed", "deleted_at": "", "purge_after": ""
    }  # fmt: skip
    assert delete(gateway, media_id).json() == said
    for one in (*SHOWN, "/api/media/analysis/{}"):
        assert gone(gateway, one.format(media_id)), one
    assert gone(gateway, path)
    assert f"/{media_id}?" not in gateway.session.get(f"{gateway.url}/users/me", headers=gateway.as_user(USER)).text
    duplicates = gateway.get(f"/api/media/duplicates/{twin}", **gateway.as_worker).json()
    assert duplicates["identical_bytes"] == duplicates["identical_pixels"] == duplicates["similar"] == []
    found = gateway.get("/api/media/search", **gateway.as_worker).json()
    assert str(media_id) not in {str(one.get("media_id", one.get("id"))) for one in found["images"]}

    (listed,) = call(gateway, "GET", "/api/media?state=trashed").json()["images"]
    assert (listed["media_id"], listed["who"], listed["why"]) == (str(media_id), f"user {USER}", "asked for")

    back = call(gateway, "POST", f"/api/media/{media_id}/restore", USER)
    assert (back.status_code, back.json()) == (200, {"media_id": str(media_id), "state": "ready"})
    assert gateway.get(f"/serve/{media_id}").content == before
    assert gateway.get(f"/api/media/analysis/{media_id}", **gateway.as_worker).json() == analysis
    gateway.run_due("again")
    assert gateway.rows("select count(*) from paid_call_uses where outcome = 'bought'")[0][0] == bought
    assert purge(gateway)["purged"] == 0


def test_what_is_purged_leaves_a_tombstone_and_the_money(seeing_gateway: Gateway) -> None:
    gateway = seeing_gateway
    media_id, other = finished(gateway, seed=1), finished(gateway, seed=2)
    spent = gateway.rows("select sum(cost_usd), count(*) from paid_call_uses")[0]
    theirs = {key for key in keys(gateway) if f"/{other}-" in key or f"/{other}." in key}
    path = gateway.rows("select image_path from media_files where id = :id", id=media_id)[0].image_path

    assert delete(gateway, media_id, purge="true").status_code == 202
    restored = call(gateway, "POST", f"/api/media/{media_id}/restore", USER)
    assert (restored.status_code, restored.json()["code"]) == (410, "purged"), "ordered, though not begun"
    assert call(gateway, "GET", "/api/media?state=trashed").json()["images"] == []
    assert purge(gateway)["purged"] == 1

    assert keys(gateway) == theirs
    for table, column in {"media_files": "id", "media_ai_analysis": "media_id", "media_variants": "media_id"}.items():
        assert not gateway.rows(f"select from {table} where {column} = :id", id=media_id)
    assert not gateway.rows("select from pending_images where image_path = :path", path=path)
    assert gateway.rows("select sum(cost_usd), count(*) from paid_call_uses")[0] == spent
    items = {row.item for row in gateway.rows("select u.item from paid_calls c join paid_call_uses u using (key)")}
    assert items == {f"media/{other}"}
    (tombstone,) = gateway.rows("select * from deletions")
    assert (tombstone.item, tombstone.who, tombstone.purged_at is not None) == (media_id, f"user {USER}", True)
    assert gone(gateway, f"/serve/{media_id}") and gone(gateway, path)
    assert gone(gateway, f"/api/images/{media_id}/info")
    answer = call(gateway, "POST", f"/api/media/{media_id}/restore", USER)
    assert (answer.status_code, answer.json()["code"]) == (410, "purged")
    assert sweep.of_everything(gateway.services).clean
    gateway.run_due("after")
    assert not gateway.rows("select from media_files where id = :id", id=media_id)


def test_an_answer_that_another_image_shares_stays(seeing_gateway: Gateway) -> None:
    gateway = seeing_gateway
    one, twin = finished(gateway, seed=1), finished(gateway, seed=1)
    answers = gateway.rows("select count(*) from paid_calls")[0][0]
    delete(gateway, one, purge="true")
    purge(gateway)
    assert gateway.rows("select count(*) from paid_calls")[0][0] == answers
    delete(gateway, twin, purge="true")
    purge(gateway)
    assert gateway.rows("select count(*) from paid_calls")[0][0] == 0


def test_a_restored_image_waits_again_where_it_waited(gateway: Gateway) -> None:
    media_id, claims = finished(gateway), gateway.services.claims
    waits = dict.fromkeys(store.AGAIN, today()) | {store.HEALING: "", store.CANARY: ""}
    with transaction(gateway.services.engine) as connection:
        for queue, day in waits.items():
            claims.enqueue(connection, queue, [Item(media_id, str(USER), day)])
    delete(gateway, media_id)
    assert call(gateway, "POST", f"/api/media/{media_id}/restore").status_code == 200
    found = {queue: row.partition for queue in waits for row in gateway.rows(WAITS, queue=queue.name)}
    assert found == waits


WAITS = "select partition from work_items where queue = :queue and state = 'waiting'"


def test_only_the_owner_a_service_and_an_operator_may(gateway: Gateway) -> None:
    media_id = finished(gateway)
    stranger = delete(gateway, media_id, user=7)
    unknown = delete(gateway, 10**9)
    assert (stranger.status_code, unknown.status_code) == (404, 404)
    for method, path in (("DELETE", ""), ("POST", "/restore"), ("POST", "/signed-url"), ("POST", "/report")):
        of_another_worker = call(gateway, method, f"/api/media/ext-900{path}", USER)
        assert of_another_worker.status_code == 404
        hinted = "DELETE /api/media/pending/{image_id}" in of_another_worker.json()["detail"]
        assert hinted is (method == "DELETE")
    assert gateway.session.delete(f"{gateway.url}/api/media/{media_id}", timeout=30).status_code == 401
    by_service = gateway.session.delete(f"{gateway.url}/api/media/{media_id}", headers=gateway.as_worker, timeout=30)
    assert by_service.status_code == 202
    assert delete(gateway, media_id, user=7).status_code == 404
    assert call(gateway, "POST", f"/api/media/{media_id}/restore", 7).status_code == 404
    assert call(gateway, "POST", f"/api/media/{media_id}/restore").status_code == 200


def test_a_private_image_is_not_opened_by_its_signed_url(gateway: Gateway) -> None:
    media_id = finished(gateway)
    call(gateway, "PUT", f"/api/media/{media_id}/privacy", USER, json={"private": True})
    url = call(gateway, "POST", f"/api/media/{media_id}/signed-url", USER).json()["url"].removeprefix(gateway.url)
    assert gateway.get(url).status_code == 200
    delete(gateway, media_id)
    assert gone(gateway, url)


def test_an_upload_that_nobody_has_looked_at_is_deleted_by_its_number(gateway: Gateway) -> None:
    upload = gateway.upload(USER, product_image=picture()).json()["images"][0]
    assert call(gateway, "DELETE", f"/api/media/pending/{upload['id']}", 7).status_code == 404
    assert call(gateway, "DELETE", f"/api/media/pending/{upload['id']}", USER).status_code == 202
    assert gone(gateway, upload["image_path"])
    assert gateway.me()["product_media"] == []
    assert gateway.get("/api/media/pending/all", **gateway.as_worker).json() == {"images": [], "total": 0}
    cleaned = f"{gateway.url}/api/media/cleanup/{upload['id']}"
    assert gateway.session.delete(cleaned, headers=gateway.as_worker, timeout=30).status_code == 410
    gateway.run_due()
    assert not gateway.rows("select from media_variants")
    (media,) = gateway.rows("select id from media_files")
    assert call(gateway, "POST", f"/api/media/{media.id}/restore", USER).status_code == 200
    gateway.run_due("run-2")
    assert gateway.get(f"/serve/{media.id}").headers["content-type"] != "image/svg+xml"
    assert gateway.rows("select status from media_files") == [("completed",)]


def test_what_another_worker_made_leaves_the_profile_too_and_comes_back(gateway: Gateway) -> None:
    for user in (USER, 7):
        images = gateway.upload(user, profile_image=picture(), product_image=picture(seed=2)).json()["images"]
        for image in images:
            url, body = f"{gateway.url}/api/media/complete/{image['id']}", {"media_id": f"ext-9-{image['field']}"}
            assert gateway.session.post(url, json=body, headers=gateway.as_worker, timeout=30).status_code == 200
    gateway.run_due()

    def shown(user: int = USER) -> list[str | None]:
        profile = gateway.me(user)
        return [profile["profile_image_path"], *(one["media_path"] for one in profile["product_media"])]

    before = [f"{gateway.url}/api/images/ext-9-{field}_image?size=detail" for field in ("profile", "product")]
    assert shown() == before
    paths = [f"/api/media/pending/{number}" for number in (1, 2)]
    deleted = [call(gateway, "DELETE", path, USER).json()["media_id"] for path in paths]
    assert shown() == [None]
    for media_id in deleted:
        assert call(gateway, "POST", f"/api/media/{media_id}/restore", USER).status_code == 200
    assert shown() == before
    for path in paths:
        call(gateway, "DELETE", path, USER, params={"purge": "true"})
    assert shown() == [None]
    assert purge(gateway)["purged"] == 2
    assert (shown(), shown(7)) == ([None], before), "the other user's have the same ids"
    assert gateway.rows("select user_id from product_media") == [(7,)]


def test_an_upload_keeps_its_place_when_another_with_the_same_reported_id_goes(gateway: Gateway) -> None:
    """A worker that knows equal files by their content gives both one id."""
    for _ in range(2):
        image = gateway.upload(USER, product_image=picture()).json()["images"][0]
        url = f"{gateway.url}/api/media/complete/{image['id']}"
        gateway.session.post(url, json={"media_id": "ext-9"}, headers=gateway.as_worker, timeout=30).raise_for_status()
    gateway.run_due()
    call(gateway, "DELETE", "/api/media/pending/1", USER, params={"purge": "true"})
    purge(gateway)
    assert f"{gateway.url}/api/images/ext-9?size=detail" in [
        one["media_path"] for one in gateway.me(USER)["product_media"]
    ]


def test_a_deletion_wins_over_the_run_at_work(seeing_gateway: Gateway, standins: StandInAccess) -> None:
    gateway = seeing_gateway
    upload = gateway.upload(USER, product_image=picture()).json()["images"][0]
    run(gateway.services, "run-1", today(), "retrieve_file")
    (media,) = gateway.rows("select id from media_files where main_api_id = :id", id=upload["id"])
    delete(gateway, media.id, purge="true")
    gateway.run_due()
    assert standins.calls("google") == []
    assert {call["operation"] for call in standins.calls("openai")} <= {"moderations"}  # which began before
    purge(gateway)
    assert keys(gateway) == set()


def test_nothing_is_bought_for_a_deleted_image_in_the_middle_of_its_analysis(gateway: Gateway) -> None:
    media_id, shop = finished(gateway), Shop()
    delete(gateway, media_id)
    with pytest.raises(LeaseLost):
        gateway.services.ledger.buy(a_call(), shop, buyer=Buyer("media", f"media/{media_id}"))
    assert shop.sold == 0


@pytest.mark.parametrize("told", [True, False])
def test_every_gateway_answers_410_within_seconds_also_one_that_has_to_look_for_itself(
    make_gateway: Callable[..., Gateway], told: bool
) -> None:
    one, two = make_gateway(), make_gateway()
    media_id = finished(one)
    assert one.get(f"/serve/{media_id}").status_code == two.get(f"/serve/{media_id}").status_code == 200
    if not told:
        one.rows("alter table deletions disable trigger tell_deleted")
    delete(one, media_id)
    assert gone(one, f"/serve/{media_id}")
    wait_for(lambda: gone(two, f"/serve/{media_id}"), "the other gateway's 410", 6 if told else 30, every=0.1)


def test_an_older_profile_image_is_served_on_and_then_goes_into_the_trash_also_if_it_was_finished_last(
    gateway: Gateway,
) -> None:
    for seed in (1, 2):
        gateway.upload(USER, profile_image=picture(seed=seed))
    intake.take_in(gateway.services)
    old, new = (row.id for row in gateway.rows("select id from media_files order by id"))
    for due in ("now() + interval '1 hour'", "now()"):
        gateway.rows(f"update work_items set due_at = {due} where queue = 'media' and item_id = {old}")
        gateway.run_due(f"run {due}")
    assert gateway.get(f"/serve/{old}").status_code == gateway.get(f"/serve/{new}").status_code == 200
    purge(gateway)
    assert gateway.get(f"/serve/{old}").status_code == 200
    gateway.rows("update media_files set replaced_at = now() - interval '31 days' where replaced_at is not null")
    gateway.rows(f"update media_files set held = true where id = {new}")
    purge(gateway)
    assert gateway.get(f"/serve/{old}").status_code == 200, "its successor is not ready"
    gateway.rows("update media_files set held = false")
    purge(gateway)
    assert gone(gateway, f"/serve/{old}")
    (listed,) = call(gateway, "GET", "/api/media?state=trashed").json()["images"]
    assert (listed["media_id"], listed["who"], listed["why"]) == (str(old), "imgpipe", "replaced")
    assert call(gateway, "POST", f"/api/media/{old}/restore").status_code == 200
    purge(gateway)
    assert gateway.get(f"/serve/{old}").status_code == gateway.get(f"/serve/{new}").status_code == 200
    gateway.rows(f"update user_profiles set profile_image_path = replace(profile_image_path, '/{new}?', '/{old}?')")
    gateway.rows(f"update media_files set replaced_at = now() - interval '31 days' where id = {old}")
    purge(gateway)
    assert gateway.get(f"/serve/{old}").status_code == 200, "the profile shows it"


def test_keep_keeps_replaced_images_and_no_days_in_the_trash_purge_at_once(
    make_gateway: Callable[..., Gateway],
) -> None:
    gateway = make_gateway(replaced_days="keep", trash_days=0)
    old = finished(gateway, field="profile_image", seed=1)
    new = finished(gateway, field="profile_image", seed=2)
    gateway.rows("update media_files set replaced_at = now() - interval '31 years'")
    assert purge(gateway)["ordered_replaced"] == 0
    delete(gateway, new)
    assert purge(gateway)["purged"] == 1
    assert not any(f"/{new}-" in key for key in keys(gateway))
    assert gateway.get(f"/serve/{old}").status_code == 200


def test_the_trash_is_emptied_when_its_time_has_come_by_the_databases_clock(gateway: Gateway) -> None:
    media_id = finished(gateway)
    delete(gateway, media_id)
    assert purge(gateway)["purged"] == 0
    gateway.rows("update deletions set purge_after = now() - interval '1 second'")
    assert purge(gateway)["purged"] == 1


def test_many_are_dealt_with_one_by_one(gateway: Gateway) -> None:
    mine, theirs = finished(gateway, seed=1), finished(gateway, seed=2, user=7)
    many = [mine, theirs, 10**9, "ext-900", -1]
    answer = call(gateway, "POST", "/api/media/bulk", USER, json={"ids": many, "action": "delete"})
    assert [(one["media_id"], one["success"], one["state"], one["code"]) for one in answer.json()["results"]] == [
        (str(mine), True, "trashed", None),
        (str(theirs), False, None, "not-found"),
        (str(10**9), False, None, "not-found"),
        ("ext-900", False, None, "not-found"),
        ("-1", False, None, "not-found"),
    ]  # fmt: skip
    assert answer.json()["results"][3]["error"].endswith("{image_id} deletes any upload.")
    assert gone(gateway, f"/serve/{mine}")
    ids = {"ids": [mine, theirs]}
    restored = call(gateway, "POST", "/api/media/bulk", json={**ids, "action": "restore"}).json()["results"]
    assert [one["state"] for one in restored] == ["ready", "ready"]
    private = call(gateway, "POST", "/api/media/bulk", json={**ids, "action": "private"}).json()["results"]
    assert [one["state"] for one in private] == ["private", "private"]
    assert gateway.get(f"/serve/{mine}").status_code == 403
    zipped = call(gateway, "POST", "/api/media/bulk", json={**ids, "action": "download"})
    assert zipped.headers["Content-Type"] == "application/zip" and zipped.content[:2] == b"PK"
    refused = call(gateway, "POST", "/api/media/bulk", USER, json={"ids": [mine], "action": "requeue"}).json()[
        "results"
    ]
    assert [one["code"] for one in refused] == ["forbidden"]
    row = audit.page(gateway.services.engine, limit=1, action="private")[0]
    assert (row["who"], row["after"]) == ("ADMIN_API_KEY", {"media": ids["ids"]})
    too_many = call(gateway, "POST", "/api/media/bulk", json={"ids": list(range(1, 1002)), "action": "delete"})
    assert too_many.status_code == 422


def test_a_failed_image_leaves_the_failures_when_it_is_deleted(gateway: Gateway) -> None:
    upload = gateway.upload(USER, product_image=picture()).json()["images"][0]
    gateway.services.media_bucket.put(upload["image_path"][1:], b"\x89PNG not quite", content_type="image/png")
    gateway.run_due()
    (letter,) = gateway.services.claims.failures(store.MEDIA)
    delete(gateway, letter.item_id)
    assert gateway.services.claims.failures(store.MEDIA) == []
    delete(gateway, letter.item_id, purge="true")
    purge(gateway)
    assert keys(gateway) == set()
    assert gateway.services.claims.failures(PURGES) == []


def test_an_image_that_is_deleted_while_it_waits_for_a_batch_has_that_cancelled(
    seeing_gateway: Gateway, standins: StandInAccess
) -> None:
    gateway, services = seeing_gateway, seeing_gateway.services
    media_id = finished(gateway)
    gateway.rows("update media_ai_analysis set version = 'old'; delete from paid_call_uses; delete from paid_calls")
    day = gateway.rows("select upload_day::text from media_files")[0][0]
    bought = "select count(*) from paid_call_uses where outcome = 'bought' and operation = 'vision'"

    def made() -> bool:
        gateway.rows("update work_items set due_at = now() where state = 'waiting'")
        return bool(make_analyses(services, "run-b", day).outcome.done)

    standins.admin("POST", "delays", {"openai.batch_work": 600})
    assert order(services, day, Step.AI_VISUAL_ANALYSIS, urgent=False) == 1
    assert not made()
    assert delete(gateway, media_id).status_code == 202
    assert purge(gateway)["ai_batches_cancelled"] == len(standins.calls("openai", "batch_cancel")) == 1
    unfinished = "select from paid_calls where state <> 'committed'"
    assert gateway.rows("select from ai_batches") == gateway.rows(unfinished) == []

    assert call(gateway, "POST", f"/api/media/{media_id}/restore").status_code == 200
    standins.admin("POST", "delays", {"openai.batch_work": 0})
    wait_for(made, "the analysis to be made again")
    answered = standins.calls("openai", "responses")
    assert gateway.rows(bought)[0][0] == sum("in_batch" in call["note"] for call in answered) == 1
