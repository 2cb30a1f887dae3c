"""A person's export and erasure, and the sweep that looks for what is left."""

import io
import json
import zipfile
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from imgpipe_orchestration.operations import erasure, sweep
from imgpipe_orchestration_tests.lifecycle.conftest import USER, call, delete, do, finished, keys, purge
from imgpipe_orchestration_tests.media.conftest import Gateway, picture


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
    assert call(gateway, "POST", f"/api/listings/images/{image['id']}/restore").json()["state"] == "ready"
    assert gateway.get(path).status_code == 200
    again = call(gateway, "DELETE", f"/api/listings/images/{image['id']}", USER, params={"purge": "true"})
    assert again.status_code == 202
    assert purge(gateway)["purged"] == 1
    assert gateway.get(path).status_code == 410
    assert list(gateway.services.listings_bucket.list()) == []
    gone = call(gateway, "POST", f"/api/listings/images/{image['id']}/restore")
    assert (gone.status_code, gone.json()["code"]) == (410, "purged")
    kept = [str(value) for value in gateway.rows("select * from deletions")[0]]
    assert not any("blue" in value.lower() or "bowl" in value.lower() for value in kept)
    assert sweep.of_everything(gateway.services).clean


def test_what_a_person_has_comes_as_a_zip(gateway: Gateway) -> None:
    media_id, trashed = finished(gateway, seed=1), finished(gateway, seed=2)
    finished(gateway, seed=3, user=7)
    delete(gateway, trashed)
    listing(gateway)
    body = {"decision": "reject", "reason": "Stolen"}
    call(gateway, "POST", f"/api/moderation/{trashed}", json=body)
    mine = call(gateway, "GET", "/users/me/export", USER)
    assert mine.headers["Content-Type"] == "application/zip"
    archive = zipfile.ZipFile(io.BytesIO(mine.content))
    assert archive.testzip() is None
    assert sorted(archive.namelist()) == [
        "images.json",
        "listings/my bowl.jpg",
        "originals/my product_image (2).jpg",
        "originals/my product_image.jpg",
    ]
    assert archive.read("originals/my product_image.jpg") == picture(seed=1)
    records = json.loads(archive.read("images.json"))
    assert [(one["of"], one.get("media_id"), one["state"]) for one in records] == [
        ("media", str(media_id), "completed"),
        ("media", str(trashed), "trashed"),
        ("listings", None, "pending"),
    ]
    assert records[1]["deleted"]["by"] == f"user {USER}"
    said = records[1]["moderation"]
    assert (said["state"], said["by"], said["why"]) == ("rejected", "ADMIN_API_KEY", "Stolen")
    for_admin = call(gateway, "GET", f"/api/users/{USER}/export")
    assert zipfile.ZipFile(io.BytesIO(for_admin.content)).namelist() == archive.namelist()


def test_a_person_is_erased_from_every_pipeline_and_the_sweep_says_so(gateway: Gateway) -> None:
    media_id, other = finished(gateway, seed=1), finished(gateway, seed=2, user=7)
    profile = finished(gateway, field="profile_image", seed=3)
    unseen = gateway.upload(USER, texts={"bio": "I am here"}, product_image=picture(seed=4)).json()["images"][0]
    listing(gateway)
    gateway.services.media_bucket.put(f"staging/{USER}/broken-off", b"x", content_type="image/jpeg")
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


def test_two_at_once_are_one_erasure(gateway: Gateway) -> None:
    finished(gateway)
    with ThreadPoolExecutor(4) as pool:
        asked = list(pool.map(lambda _: erasure.ask(gateway.services, USER, who="both"), range(4)))
    assert len(set(asked)) == 1
    purge(gateway)
    assert erased(gateway)["erasure_id"] != str(asked[0])


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
        do(gateway, statement.replace("THE ERASED ONE", str(media_id)))
        more(statement)
    services.documents.collection("news_document").insert_one({"user_id": f"user_{USER}", "image": "x"})
    more("a document")
    assert not sweep.of_everything(gateway.services).clean


def test_an_erasure_is_not_done_while_something_is_left(gateway: Gateway) -> None:
    finished(gateway)
    do(gateway, TABLE_OF_TOMORROW)
    found = erased(gateway)
    assert (found["state"], found["verified"]) == ("running", {"objects": 0, "rows": 1})
    assert "moderation_notes" in found["error"]
    do(gateway, "drop table moderation_notes")
    gateway.services.claims.hasten(erasure.ERASURES)
    purge(gateway)
    assert call(gateway, "GET", f"/api/erasures/{found['erasure_id']}").json()["state"] == "done"
