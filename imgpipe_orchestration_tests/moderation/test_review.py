"""What people decide of doubtful images, and what the public reports."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import UUID

import pytest
import requests

from imgpipe_orchestration.operations import review
from imgpipe_orchestration_tests.lifecycle.conftest import call, finished
from imgpipe_orchestration_tests.media.conftest import Gateway, picture
from imgpipe_orchestration_tests.moderation.conftest import OTHER, USER, process, saying, send, verdict


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
    restored = call(holding, "POST", f"/api/media/{sent.media_id}/restore", USER)
    assert (restored.status_code, restored.json()["state"]) == (200, "held")
    many = call(holding, "POST", "/api/media/bulk", USER, json={"ids": [sent.media_id], "action": "restore"})
    assert many.json()["results"][0]["state"] == "held"
    assert holding.get(path).status_code == 403
    assert decide(holding, str(sent.media_id), "approve").json()["verdict"]["state"] == "approved"
    assert holding.get(path).status_code == 200
    decide(holding, f"listings/{listing}", "reject")
    restored = call(holding, "POST", f"/api/listings/images/{listing}/restore", USER)
    assert (restored.json()["state"], holding.get(sent.listing).status_code) == ("held", 403)
    rows = holding.rows("select subject, after ->> 'state' as state from audit where action = 'moderate' order by id")
    done = [(row.subject.partition("/")[0], row.state) for row in rows if row.state]
    assert done == [("listings", "approved"), ("media", "rejected"), ("media", "approved"), ("listings", "rejected")]


def test_identical_bytes_take_a_decision_over_also_from_an_image_that_is_purged(holding: Gateway) -> None:
    sent = send(holding, saying("violence=0.9", seed=2))
    process(holding)
    decide(holding, str(sent.media_id), "reject", "Blood")
    call(holding, "DELETE", f"/api/media/{sent.media_id}", params={"purge": "true"})
    again = send(holding, saying("violence=0.9", seed=2), user=OTHER)
    process(holding, "run-2")
    assert holding.get(f"/serve/{again.media_id}").status_code == 410
    assert again.shown().keys() <= {again.temp, f"/serve/{again.media_id}"} or set(again.shown().values()) == {410}
    (trashed,) = [
        one for one in call(holding, "GET", "/api/media").json()["images"] if one["media_id"] == str(again.media_id)
    ]
    assert trashed["why"] == f"rejected: Its bytes are those of media/{sent.media_id}. Blood"


def test_when_a_profile_image_is_rejected_the_one_before_is_shown_again(flagging: Gateway) -> None:
    before = finished(flagging, field="profile_image", seed=3)
    after = finished(flagging, field="profile_image", seed=4)
    assert f"/{after}?" in flagging.me()["profile_image_path"]
    assert decide(flagging, str(after), "reject").status_code == 200
    assert f"/{before}?" in flagging.me()["profile_image_path"]


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
    decide(flagging, str(media_id), "approve")
    assert reports(3).json()["counted"]
    assert flagging.get(f"/serve/{media_id}").status_code == 200
    codes = {reports(None).status_code for _ in range(30)}
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
