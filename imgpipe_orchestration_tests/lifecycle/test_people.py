"""A person's export and erasure, and the sweep that looks for what is left."""

import io
import json
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from imgpipe_orchestration.billing.calls import Buyer, PaidCall, Purchase
from imgpipe_orchestration.errors import LeaseLost, UnreadableAnswer
from imgpipe_orchestration.operations import erasure, sweep
from imgpipe_orchestration.partners.usage import Usage, charged
from imgpipe_orchestration_tests.lifecycle.conftest import (
    USER,
    call,
    delete,
    finished,
    keys,
    purge,
    with_another_secret_key,
)
from imgpipe_orchestration_tests.media.conftest import Gateway, picture
from imgpipe_orchestration_tests.plans import reading


def listing(gateway: Gateway, user: int = USER, title: str = "Blue bowl") -> dict[str, Any]:
    files = {"images": ("my bowl.jpg", picture(seed=9), "image/jpeg")}
    headers = gateway.as_user(user)
    url = f"{gateway.url}/api/upload/listing_image"
    answer = gateway.session.post(url, data={"listing_title": title}, files=files, headers=headers, timeout=30)
    data: dict[str, Any] = answer.json()["data"]
    return data


def erased(gateway: Gateway, user: int = USER) -> dict[str, Any]:
    answer = call(gateway, "DELETE", "/users/me", user)
    assert answer.status_code == 202
    purge(gateway)
    found: dict[str, Any] = call(gateway, "GET", f"/api/erasures/{answer.json()['erasure_id']}", user).json()
    return found


def test_a_listing_is_deleted_restored_and_purged(gateway: Gateway) -> None:
    data = listing(gateway)
    (image,) = data["images"]
    path = "/" + image["url"].split("/", 3)[3]
    assert call(gateway, "DELETE", f"/api/listings/images/{image['id']}", 7).status_code == 404
    assert call(gateway, "DELETE", f"/api/listings/{data['listing_id']}/images", USER).status_code == 202
    answer = gateway.get(path)
    assert (answer.status_code, answer.json()["code"], answer.headers["Cache-Control"]) == (410, "deleted", "no-store")
    restore = f"/api/listings/images/{image['id']}/restore"
    assert call(gateway, "POST", restore, 7).status_code == 404
    assert call(gateway, "POST", restore).json()["state"] == "ready"
    assert gateway.get(path).status_code == 200
    again = call(gateway, "DELETE", f"/api/listings/images/{image['id']}", USER, params={"purge": "true"})
    assert again.status_code == 202
    assert purge(gateway)["purged"] == 1
    assert gateway.get(path).status_code == 410
    assert list(gateway.services.listings_bucket.list()) == []
    for user in (None, USER):
        gone = call(gateway, "POST", restore, user)
        assert (gone.status_code, gone.json()["code"]) == (410, "purged")
    assert call(gateway, "POST", restore, 7).status_code == 404
    kept = [str(value) for value in gateway.rows("select * from deletions")[0]]
    assert not any("blue" in value.lower() or "bowl" in value.lower() for value in kept)
    assert sweep.of_everything(gateway.services).clean


def test_what_a_person_has_comes_as_a_zip(gateway: Gateway) -> None:
    media_id, trashed = finished(gateway, seed=1), finished(gateway, seed=2)
    finished(gateway, seed=3, user=7)
    delete(gateway, trashed)
    listing(gateway)
    gateway.upload(USER, header_image=picture(seed=4))  # no worker has looked at it
    body = {"decision": "reject", "reason": "Stolen"}
    call(gateway, "POST", f"/api/moderation/{trashed}", json=body)
    mine = call(gateway, "GET", "/users/me/export", USER)
    assert mine.headers["Content-Type"] == "application/zip"
    archive = zipfile.ZipFile(io.BytesIO(mine.content))
    assert archive.testzip() is None
    assert sorted(archive.namelist()) == [
        "images.json",
        "listings/my bowl.jpg",
        "originals/my header_image.jpg",
        "originals/my product_image (2).jpg",
        "originals/my product_image.jpg",
    ]
    assert archive.read("originals/my product_image.jpg") == picture(seed=1)
    records = json.loads(archive.read("images.json"))
    assert [(one["of"], one.get("media_id"), one["state"]) for one in records] == [
        ("media", str(media_id), "completed"),
        ("media", str(trashed), "trashed"),
        ("media", records[2]["media_id"], "downloading"),
        ("listings", None, "pending"),
    ]
    assert [one["kind"] for one in records[:3]] == ["product", "product", "header"]
    assert records[1]["deleted"]["by"] == f"user {USER}"
    said = records[1]["moderation"]
    assert (said["state"], said["by"], said["why"]) == ("rejected", "ADMIN_API_KEY", "Stolen")
    for_admin = call(gateway, "GET", f"/api/users/{USER}/export")
    assert zipfile.ZipFile(io.BytesIO(for_admin.content)).namelist() == archive.namelist()
    gateway.run_due()
    assert gateway.get(f"/serve/{records[2]['media_id']}").status_code == 200


def test_nothing_is_exported_once_its_purge_was_ordered(gateway: Gateway) -> None:
    media_id, erasing = finished(gateway), finished(gateway, seed=2, user=7)
    delete(gateway, media_id, purge="true")
    call(gateway, "DELETE", "/users/me", 7)
    for user in (USER, 7):
        archive = zipfile.ZipFile(io.BytesIO(call(gateway, "GET", "/users/me/export", user).content))
        assert archive.namelist() == ["images.json"] and archive.read("images.json") == b"[]\n"
    assert gateway.rows("select id from media_files order by id") == [(media_id,), (erasing,)], "not purged yet"


def test_a_person_is_erased_from_every_pipeline_and_the_sweep_says_so(gateway: Gateway) -> None:
    media_id, other = finished(gateway, seed=1), finished(gateway, seed=2, user=7)
    profile = finished(gateway, field="profile_image", seed=3)
    unseen = gateway.upload(USER, texts={"bio": "I am here"}, product_image=picture(seed=4)).json()["images"][0]
    listing(gateway)
    gateway.services.media_bucket.put(f"staging/{USER}/broken-off", b"x", content_type="image/jpeg")
    gateway.rows(JUDGED_LATE)
    theirs = {key for key in keys(gateway) if f"/{other}-" in key or f"/{other}." in key}

    found = erased(gateway)

    assert (found["state"], found["verified"]) == ("done", {"objects": 0, "rows": 0}), found
    assert found["counts"]["media"] == 3 and found["counts"]["listings"] == 1
    assert keys(gateway) == theirs
    assert list(gateway.services.listings_bucket.list()) == []
    assert gateway.me()["bio"] is None
    for one in (media_id, profile):
        assert gateway.get(f"/serve/{one}").status_code == 410
    assert gateway.get(unseen["image_path"]).status_code == 410  # no worker had looked at it
    assert gateway.get(f"/serve/{other}").status_code == 200
    erasure_id = found["erasure_id"]
    assert call(gateway, "GET", f"/api/erasures/{erasure_id}", 7).status_code == 404
    assert call(gateway, "GET", f"/api/erasures/{erasure_id}").json()["state"] == "done"


def test_the_tombstones_of_an_erasure_name_whoever_asked_for_it(gateway: Gateway) -> None:
    finished(gateway)
    assert call(gateway, "DELETE", f"/api/users/{USER}").status_code == 202
    late = finished(gateway, seed=2)  # it is found when the erasure is worked on
    purge(gateway)
    tombstones = gateway.rows("select item, who, why from deletions order by item")
    assert [tuple(row)[1:] for row in tombstones] == [("ADMIN_API_KEY", "erasure")] * 2 and tombstones[1].item == late


@pytest.mark.parametrize("failed", [False, True])
def test_of_a_call_that_is_answered_after_the_person_was_erased_only_the_cost_stays(
    gateway: Gateway, failed: bool
) -> None:
    services, buyer = gateway.services, Buyer("media", f"media/{finished(gateway)}", str(USER))

    def purchase() -> Purchase:
        assert erased(gateway)["state"] == "done"
        usage = Usage("gpt-4o", input_tokens=1000)
        with charged(usage):
            if failed:
                raise UnreadableAnswer("Somebody in a garden")
        return Purchase(usage, {"text": "Somebody in a garden"})

    with pytest.raises(UnreadableAnswer if failed else LeaseLost):
        services.ledger.buy(PaidCall.of("openai", "late", "gpt-4o", inputs=["?"]), purchase, buyer=buyer)
    (use,) = gateway.rows("select * from paid_call_uses where operation = 'late'")
    assert (use.outcome, use.tenant, use.error, use.cost_usd > 0) == ("bought", "", None, True)
    assert sweep.of_user(services, USER).clean
    assert sweep.of_everything(services).clean


def test_what_they_wrote_of_others_images_is_erased_and_still_counts(
    gateway: Gateway, make_gateway: Callable[..., Gateway]
) -> None:
    other = finished(gateway, user=7)
    for user in (8, 9, USER):
        body = {"reason": f"I am {user}"}
        assert call(gateway, "POST", f"/api/media/{other}/report", user, json=body).json()["counted"]
    gateway = with_another_secret_key(make_gateway, gateway)
    assert not call(gateway, "POST", f"/api/media/{other}/report", USER, json=body).json()["counted"]
    assert sweep.of_user(gateway.services, USER).where == {"reports": 1}
    assert erased(gateway)["state"] == "done"
    assert [row.reason for row in gateway.rows("select * from reports order by reason")] == ["I am 8", "I am 9"]
    (verdict,) = gateway.rows("select * from verdicts where item = :id", id=other)
    assert (verdict.reports, verdict.holding, verdict.reason) == (3, True, "3 reports.")


def test_two_at_once_are_one_erasure(gateway: Gateway) -> None:
    finished(gateway)
    with ThreadPoolExecutor(4) as pool:
        asked = list(pool.map(lambda _: erasure.ask(gateway.services, USER, who="both"), range(4)))
    assert len(set(asked)) == 1
    purge(gateway)
    assert erased(gateway)["erasure_id"] != str(asked[0])


JUDGED_LATE = f"""
    insert into verdicts (kind, item, user_id, digest, holding) values ('media', 999, {USER}, gen_random_uuid(), false);
    insert into work_turns values ('moderation', '', '{USER}', 'new', 1, 1) on conflict do nothing
"""
TABLE_OF_TOMORROW = f"""
    create table moderation_notes (user_id bigint, note text);
    insert into moderation_notes values ({USER}, 'left')
"""
ROWS = [
    f"insert into user_profiles (user_id, bio) values ({USER}, 'left')",
    f"insert into pending_images (user_id, image_path, status) values ({USER}, '/temp_images/x', 'failed')",
    f"""
    insert into kept_answers (route, caller, idempotency_key, request_sha256, answer)
    values ('listings', '{USER}', 'k', 'h', '{{}}')
    """,
    """
    insert into paid_calls (key, provider, operation, model, input_hash, parameter_hash, state)
    values ('k', 'openai', 'vision', 'm', 'i', 'p', 'committed');
    insert into paid_call_uses (key, outcome, pipeline, item, provider, operation, model)
    values ('k', 'bought', 'media', 'media/THE ERASED ONE', 'openai', 'vision', 'm')
    """,
    TABLE_OF_TOMORROW,
]


def test_the_sweep_finds_whatever_is_left(gateway: Gateway) -> None:
    media_id, services = finished(gateway), gateway.services
    assert erased(gateway)["state"] == "done"
    found = sweep.of_user(services, USER)
    assert found.clean

    def more(what: str) -> None:
        nonlocal found
        before, found = found, sweep.of_user(services, USER)
        assert found.objects + found.rows == before.objects + before.rows + 1, what

    for key in (
        f"library/user_{USER}/product/img/{media_id}-detail-0123456789ab.avif",
        f"temp_images/products/{USER}-product-1-000000001.jpg",
    ):
        services.media_bucket.put(key, b"left", content_type="image/avif")
        more(key)
    for statement in ROWS:
        gateway.rows(statement.replace("THE ERASED ONE", str(media_id)))
        more(statement)
    services.documents.collection("news_document").insert_one({"user_id": f"user_{USER}", "image": "x"})
    more("a document")
    assert not sweep.of_everything(gateway.services).clean


def test_the_sweep_does_not_compare_every_answer_with_every_deletion(gateway: Gateway) -> None:
    gateway.rows("""
        insert into deletions (what, kind, item, user_id, who, why, purge_after, purged_at)
        select 'media/' || i, 'media', i, i & 1, '', '', now(), now() from generate_series(1, 2000) i;
        insert into paid_calls (key, provider, operation, model, input_hash, parameter_hash, state)
        select i, 'openai', 'vision', 'm', 'i', 'p', 'committed' from generate_series(1, 2000) i;
        insert into paid_call_uses (key, outcome, pipeline, item, provider, operation, model)
        select i, 'bought', 'media', 'media/' || i || '/part', 'openai', 'vision', 'm' from generate_series(1, 2000) i;
        analyze deletions, paid_calls, paid_call_uses
    """)  # fmt: skip
    with reading(gateway.services.engine, "from paid_calls c") as read:
        assert sweep.of_user(gateway.services, 1).where["paid_calls"] == 1000
        assert sweep.of_everything(gateway.services).where["paid_calls"] == 2000
    assert max(read) <= 4000


def test_an_erasure_is_not_done_while_something_is_left(gateway: Gateway) -> None:
    finished(gateway)
    gateway.rows(TABLE_OF_TOMORROW)
    found = erased(gateway)
    assert (found["state"], found["verified"]) == ("running", {"objects": 0, "rows": 1})
    assert "moderation_notes" in found["error"]
    gateway.rows("drop table moderation_notes")
    gateway.services.claims.hasten(erasure.ERASURES)
    purge(gateway)
    assert call(gateway, "GET", f"/api/erasures/{found['erasure_id']}").json()["state"] == "done"
