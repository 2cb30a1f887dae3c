"""What people decide of doubtful images, and what the public reports."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import UUID

import pytest
import requests
from sqlalchemy import Engine, text

from imgpipe_orchestration.lifecycle import trash
from imgpipe_orchestration.media.lifecycle import MEDIA
from imgpipe_orchestration.operations import review
from imgpipe_orchestration.operations.kinds import subject_of
from imgpipe_orchestration.storage.rows import transaction
from imgpipe_orchestration_tests.conftest import StandInAccess
from imgpipe_orchestration_tests.devstack.running import wait_for
from imgpipe_orchestration_tests.lifecycle.conftest import call, finished, with_another_secret_key
from imgpipe_orchestration_tests.media.conftest import Gateway, picture
from imgpipe_orchestration_tests.media.test_pipeline import make_due
from imgpipe_orchestration_tests.moderation.conftest import OTHER, USER, process, saying, send, verdict
from imgpipe_orchestration_tests.plans import reading


def decide(gateway: Gateway, path: str, decision: str, reason: str = "") -> requests.Response:
    body = {"decision": decision, "reason": reason}
    return call(gateway, "POST", f"/api/moderation/{path}", json=body)


def listed(gateway: Gateway) -> dict[tuple[str, str], Any]:
    answer = call(gateway, "GET", "/api/moderation/queue").json()
    return {(one["kind"], one["id"]): one for one in answer["items"]}


def test_approved_it_is_shown_and_rejected_it_is_in_the_trash_and_stays_held_when_its_owner_takes_it_out(
    holding: Gateway,
) -> None:
    sent = send(holding, saying("sexual=0.9", seed=1))
    process(holding)
    waits = listed(holding)
    listing = next(name for kind, name in waits if kind == "listings")
    assert set(waits) == {("media", str(sent.media_id)), ("listings", listing)}
    assert waits["media", str(sent.media_id)]["verdict"]["categories"] == ["sexual"]
    first = decide(holding, f"listings/{listing}", "approve", "A statue").json()
    again = decide(holding, f"listings/{listing}", "approve", "Something else").json()
    assert first == again, "a decision made twice is one"
    assert listed(holding) == {}, "the same bytes were decided on with it"
    found = verdict(holding, sent.media_id)
    assert (found["state"], found["decided_by"]) == ("approved", "ADMIN_API_KEY")
    assert found["reason"].startswith("Its bytes are those of listings/")
    assert sent.shown()[sent.listing] == 200
    rejected = decide(holding, str(sent.media_id), "reject", "Not a statue").json()["verdict"]
    assert (rejected["state"], rejected["reason"]) == ("rejected", "Not a statue")
    path = f"/serve/{sent.media_id}"
    assert holding.get(path).status_code == 410
    assert holding.get(sent.listing).status_code == 410, "what took the first decision over takes this one over"
    restored = call(holding, "POST", f"/api/media/{sent.media_id}/restore", USER)
    assert (restored.status_code, restored.json()["state"]) == (200, "held")
    many = call(holding, "POST", "/api/media/bulk", USER, json={"ids": [sent.media_id], "action": "restore"})
    assert many.json()["results"][0]["state"] == "held"
    assert holding.get(path).status_code == 403
    assert decide(holding, str(sent.media_id), "approve").json()["verdict"]["state"] == "approved"
    assert (holding.get(path).status_code, holding.get(sent.listing).status_code) == (200, 200)
    decide(holding, f"listings/{listing}", "reject")
    wait_for(lambda: holding.get(path).status_code == 410, "the news of it at the gateway", 30)
    restored = call(holding, "POST", f"/api/listings/images/{listing}/restore", USER)
    assert (restored.json()["state"], holding.get(sent.listing).status_code) == ("held", 403)
    rows = holding.rows("select subject, after ->> 'state' as state from audit where action = 'moderate' order by id")
    done = [(row.subject.partition("/")[0], row.state) for row in rows]
    assert done == [("listings", "approved"), ("media", "rejected"), ("media", "approved"), ("listings", "rejected")]


def test_a_decision_on_what_nobody_judged_is_in_the_audit_once_with_what_was_before(
    make_gateway: Callable[..., Gateway],
) -> None:
    off = make_gateway(moderation="off")
    media_id = finished(off)
    for _ in range(2):
        assert decide(off, str(media_id), "reject", "Stolen").status_code == 200
    (row,) = off.rows("select subject, before, after from audit where action = 'moderate'")
    after = {"state": "rejected", "reason": "Stolen"}
    assert tuple(row) == (f"media/{media_id}", {"state": "waiting"}, after)


def test_identical_bytes_take_a_decision_over_also_from_an_image_that_is_purged(
    holding: Gateway, make_gateway: Callable[..., Gateway]
) -> None:
    sent = send(holding, saying("violence=0.9", seed=2))
    process(holding)
    decide(holding, str(sent.media_id), "reject", "Blood")
    call(holding, "DELETE", f"/api/media/{sent.media_id}", params={"purge": "true"})
    holding = with_another_secret_key(make_gateway, holding)
    assert holding.get(sent.temp).status_code == 410
    again = send(holding, saying("violence=0.9", seed=2), user=OTHER)
    process(holding, "run-2")
    assert holding.get(f"/serve/{again.media_id}").status_code == 410
    assert again.shown().keys() <= {again.temp, f"/serve/{again.media_id}"} or set(again.shown().values()) == {410}
    (trashed,) = [
        one for one in call(holding, "GET", "/api/media").json()["images"] if one["media_id"] == str(again.media_id)
    ]
    assert trashed["why"] == f"rejected: Its bytes are those of media/{sent.media_id}. Blood"


@pytest.mark.parametrize("way", ["owner", "many", "page"])
def test_what_its_owner_deletes_after_the_rejection_stays_deleted_when_it_is_approved(
    flagging: Gateway, way: str
) -> None:
    sent, other = send(flagging, picture(seed=2)), send(flagging, picture(seed=2), user=OTHER)
    process(flagging)
    decide(flagging, str(sent.media_id), "reject", "Blood")
    path = f"/api/media/{sent.media_id}"
    (listing,) = flagging.rows("select public_id from image_queue where user_id = :user", user=USER)
    before = flagging.rows("select what, trashed_at from deletions order by what")
    if way == "owner":
        assert call(flagging, "DELETE", path, OTHER).status_code == 404
        assert call(flagging, "DELETE", path, USER).json()["state"] == "trashed"
        assert call(flagging, "DELETE", f"/api/listings/images/{listing.public_id}", USER).status_code == 202
    elif way == "many":
        call(flagging, "POST", "/api/media/bulk", USER, json={"ids": [sent.media_id], "action": "delete"})
    else:
        token = call(flagging, "GET", "/trash").text.partition('name="form_token" value="')[2].partition('"')[0]
        form = {"form_token": token, "action": "delete", "what": f"media/{sent.media_id}", "confirmed": "true"}
        assert call(flagging, "POST", "/selected", data=form, allow_redirects=False).status_code == 303
    assert flagging.rows("select what, trashed_at from deletions order by what") == before
    decide(flagging, str(other.media_id), "approve")
    decide(flagging, str(sent.media_id), "approve")
    shown = sent.shown()
    assert shown[f"/serve/{sent.media_id}"] == 410
    assert shown[sent.listing] == (410 if way == "owner" else 200)
    assert other.shown()[f"/serve/{other.media_id}"] == 200
    assert call(flagging, "POST", f"{path}/restore", USER).json()["state"] == "ready"


def test_what_is_deleted_in_the_moment_in_which_it_is_approved_is_deleted(flagging: Gateway) -> None:
    services, subject, media_id = flagging.services, subject_of("media"), finished(flagging)
    what = subject.what(media_id)

    def delete(meet: threading.Barrier, many: bool) -> None:
        meet.wait()
        if not many:
            trash.delete(services, MEDIA, what, [media_id], user=USER, who="Bo")
            return
        with transaction(services.engine) as connection:
            trash.put(services, connection, MEDIA, [media_id], who="Bo", why="asked for", days=1)

    for round_ in range(6):
        review.decide(services, subject, media_id, approve=False, why="", who="Ada")
        meet = threading.Barrier(2)
        with ThreadPoolExecutor(1) as pool:
            deleted = pool.submit(delete, meet, bool(round_ % 2))
            meet.wait()
            review.decide(services, subject, media_id, approve=True, why="", who="Ada")
            deleted.result()
        assert [(one.who, one.why) for one in flagging.rows("select who, why from deletions")] == [("Bo", "asked for")]
        trash.restore(services, MEDIA, what, user=USER)


def test_what_was_asked_about_while_somebody_decided_on_the_same_bytes_takes_that_over(
    flagging: Gateway, standins: StandInAccess
) -> None:
    standins.fault("openai", "server_error", operation="moderations", count=None, status=503)
    sent = send(flagging, saying("sexual=0.1", seed=7))
    process(flagging)
    assert (verdict(flagging, sent.media_id) or {}).get("state") is None
    flagging.rows("""
        insert into decisions (digest, approved, what, reason, decided_by)
        select distinct digest, false, 'media/1', 'Stolen', 'Ada' from verdicts returning 1
    """)
    standins.admin("DELETE", "faults")
    make_due(flagging, "moderation")
    process(flagging, "run-2")
    assert flagging.rows("select distinct state, decided_by, reason from verdicts") == [
        ("rejected", "Ada", "Its bytes are those of media/1. Stolen")
    ]
    assert flagging.get(f"/serve/{sent.media_id}").status_code == 410


def test_reports_also_hold_what_is_only_held_until_its_verdict(holding: Gateway, standins: StandInAccess) -> None:
    standins.fault("openai", "server_error", operation="moderations", count=None, status=503)
    sent = send(holding, picture(seed=8))
    process(holding)
    for user in (1, 2, 3):
        answer = call(holding, "POST", f"/api/media/{sent.media_id}/report", user, json={"reason": "Mine"})
        assert answer.json()["counted"]
    standins.admin("DELETE", "faults")
    make_due(holding, "moderation")
    process(holding, "run-2")
    found = verdict(holding, sent.media_id)
    assert (found["state"], found["decided_by"]) == ("held", "reports")
    assert ("media", str(sent.media_id)) in listed(holding)
    path = f"/api/media/{sent.media_id}"
    call(holding, "DELETE", path, USER)
    assert call(holding, "POST", f"{path}/report", 4, json={"reason": "Mine"}).json()["code"] == "deleted"


def test_when_a_profile_image_is_rejected_the_one_before_is_shown_again(flagging: Gateway) -> None:
    before = finished(flagging, field="profile_image", seed=3)
    after = finished(flagging, field="profile_image", seed=4)
    assert f"/{after}?" in flagging.me()["profile_image_path"]
    assert decide(flagging, str(after), "reject").status_code == 200
    assert f"/{before}?" in flagging.me()["profile_image_path"]
    assert decide(flagging, str(after), "approve").status_code == 200
    assert f"/{after}?" in flagging.me()["profile_image_path"]
    replaced = flagging.rows("select id from media_files where replaced_at is not null")
    assert [row.id for row in replaced] == [before]
    flagging.rows(f"update media_files set replaced_at = now() where id = {after} returning 1")
    for decision in ("reject", "approve"):
        decide(flagging, str(after), decision)
    assert flagging.rows("select id from media_files where replaced_at is not null") == replaced


@pytest.mark.parametrize("by", ["person", "model"])
def test_a_held_profile_image_takes_its_place_also_when_a_later_one_was_rejected_first(
    holding: Gateway, standins: StandInAccess, by: str
) -> None:
    standins.fault("openai", "server_error", operation="moderations", count=None, status=503)
    first, later = (finished(holding, field="profile_image", seed=seed) for seed in (1, 2))
    decide(holding, str(later), "reject")
    assert holding.me()["profile_image_path"] is None
    standins.admin("DELETE", "faults")
    decide(holding, str(first), "approve") if by == "person" else process(holding, "run-3")
    assert f"/{first}?" in holding.me()["profile_image_path"]


def test_a_profile_image_that_was_rejected_before_it_was_made_takes_its_place_once_it_is_approved(
    flagging: Gateway,
) -> None:
    decide(flagging, str(finished(flagging, seed=4)), "reject")
    before = finished(flagging, field="profile_image", seed=3)
    after = finished(flagging, field="profile_image", seed=4)
    assert f"/{before}?" in flagging.me()["profile_image_path"]
    assert decide(flagging, str(after), "approve").status_code == 200
    flagging.run_due("run of the approved")
    assert f"/{after}?" in flagging.me()["profile_image_path"]


def test_a_model_never_undoes_what_a_person_decided(flagging: Gateway) -> None:
    sent = send(flagging, picture(seed=5))
    process(flagging)
    decide(flagging, str(sent.media_id), "reject", "Stolen")
    flagging.rows("update work_items set state = 'waiting', due_at = now() where queue = 'moderation' returning 1")
    process(flagging, "run-2")
    states = flagging.rows("select distinct state from verdicts")
    assert [row.state for row in states] == ["rejected"]


def test_three_reports_hold_an_image_once_from_each_user_and_none_after_a_person_approved_it(flagging: Gateway) -> None:
    media_id = finished(flagging, seed=6)
    path = f"/api/media/{media_id}/report"

    def reports(user: int | None) -> requests.Response:
        headers = flagging.as_user(user) if user else {}
        return flagging.session.post(flagging.url + path, json={"reason": "Mine"}, headers=headers, timeout=30)

    answers = [reports(user).json()["counted"] for user in (1, 1, 2)]
    assert answers == [True, False, True]
    assert flagging.get(f"/serve/{media_id}").status_code == 200
    assert reports(None).status_code == 202
    refused = flagging.get(f"/serve/{media_id}")
    assert (refused.status_code, refused.json()["code"]) == (403, "held")
    entry = listed(flagging)["media", str(media_id)]
    assert (entry["reports"], entry["verdict"]["decided_by"]) == (3, "reports")
    assert "by reports: <bdi>" in call(flagging, "GET", f"/media/{media_id}").text, "no stand-in counted them"
    assert reports(4).json()["counted"]
    entry = listed(flagging)["media", str(media_id)]
    assert (entry["reports"], entry["verdict"]["reason"]) == (4, "4 reports. The last one: Mine")
    decide(flagging, str(media_id), "approve")
    assert reports(3).json()["counted"]
    assert flagging.get(f"/serve/{media_id}").status_code == 200
    codes = {reports(None).status_code for _ in range(200)}
    assert codes == {202, 429}
    unknown = flagging.session.post(
        f"{flagging.url}/api/media/999/report", json={"reason": "x"}, headers=flagging.as_user(9), timeout=30
    )
    assert unknown.status_code in {404, 429}


@pytest.mark.parametrize("unknown", ["999", "briefs/999", "avatars/1302994", f"listings/{UUID(int=1)}"])
def test_nothing_can_be_decided_on_what_is_not_there(flagging: Gateway, unknown: str) -> None:
    assert decide(flagging, unknown, "reject").status_code == 404


def test_two_reviewers_never_get_the_same_image(flagging: Gateway) -> None:
    for seed in range(10, 16):
        flagging.upload(USER, product_image=saying("sexual=0.9", seed=seed))
    flagging.run_due()
    with ThreadPoolExecutor(4) as pool:
        names = [f"reviewer-{number}" for number in range(4)]
        taken = list(pool.map(lambda name: review.take(flagging.services, name, limit=2), names))
    items = [one.item for some in taken for one in some]
    assert len(items) == len(set(items)) == 6
    assert review.take(flagging.services, "reviewer-0", limit=2) == taken[0], "a page loaded again is the same"
    assert listed(flagging) == {}


def test_what_is_in_the_trash_waits_for_nobody_until_it_is_restored(flagging: Gateway) -> None:
    sent = send(flagging, saying("sexual=0.9", seed=9))
    process(flagging)
    call(flagging, "DELETE", f"/api/media/{sent.media_id}", USER)
    assert [kind for kind, _ in listed(flagging)] == ["listings"]
    assert [one.kind for one in review.take(flagging.services, "Ada", limit=2)] == ["listings"]
    with transaction(flagging.services.engine) as connection:
        assert (review.count(connection), review.figures(connection).waiting) == (1, 1)
    call(flagging, "POST", f"/api/media/{sent.media_id}/restore", USER)
    assert [one.kind for one in review.take(flagging.services, "Ada", limit=2)] == ["media", "listings"]


def test_a_few_that_wait_are_listed_without_reading_all_that_is_decided(engine: Engine) -> None:
    with transaction(engine) as connection:
        connection.execute(text("""
            insert into verdicts (kind, item, digest, holding, state, review_since)
            select 'media', i, gen_random_uuid(), false, 'clear', case when i > 9500 then now() end
            from generate_series(1, 10000) i
        """))  # fmt: skip
        connection.execute(text("analyze verdicts"))
        with reading(engine, "order by id") as read:
            assert [one.item for one in review.waiting(connection, limit=3)] == [9501, 9502, 9503]
    assert max(read) <= 500


def test_what_went_while_it_waited_does_not_hold_the_rest_up(flagging: Gateway) -> None:
    flagging.rows("""
        insert into verdicts (kind, item, digest, holding, state, review_since)
        values ('findings', 1, gen_random_uuid(), false, 'flagged', now()) returning 1
    """)
    page = call(flagging, "GET", "/review")
    assert (page.status_code, "It no longer exists." in page.text) == (200, True)
