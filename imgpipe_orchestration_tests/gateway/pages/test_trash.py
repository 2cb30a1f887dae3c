"""The trash and people's erasures, by mouse."""

import zipfile

import pytest
import requests
from playwright.sync_api import expect

from imgpipe_orchestration.identity import audit
from imgpipe_orchestration.media import intake
from imgpipe_orchestration.operations import deletion
from imgpipe_orchestration_tests.gateway.browser import Visitor
from imgpipe_orchestration_tests.lifecycle.test_people import listing
from imgpipe_orchestration_tests.media.conftest import Gateway, picture

pytestmark = pytest.mark.slow


def test_an_image_is_deleted_restored_and_removed_for_good(guest: Visitor, gateway: Gateway) -> None:
    gateway.finish(456, product_image=picture())
    page = guest.go("/media/1")
    page.get_by_role("button", name="Delete", exact=True).click()
    expect(page.get_by_text("can be restored from the trash for 30 days")).to_be_visible()
    assert guest.axe() == []
    assert gateway.get("/serve/1").status_code == 200
    page.get_by_role("button", name="Delete 1 image").click()
    expect(page.get_by_role("status")).to_have_text("1 image is deleted.")
    assert gateway.get("/serve/1").status_code == 410
    guest.go("/trash")
    page.get_by_role("button", name="Restore media 1").click()
    expect(page.get_by_role("status")).to_have_text("1 item is restored.")
    assert gateway.get("/serve/1").status_code == 200
    gateway.rows("update media_files set held = true returning id")
    requests.delete(f"{gateway.url}/api/media/1", headers=gateway.as_user(456), timeout=30)
    guest.go("/trash")
    page.get_by_role("button", name="Restore media 1").click()
    told = "1 item is restored. 1 item stays held back until somebody approves."
    expect(page.get_by_role("status")).to_have_text(told)
    requests.delete(f"{gateway.url}/api/media/1", headers=gateway.as_user(456), timeout=30)
    guest.go("/trash")
    page.get_by_label("Select media 1").check()
    page.get_by_role("button", name="Remove for good").click()
    expect(page.get_by_text("All files are removed for good. This cannot be undone.")).to_be_visible()
    asked = page.context.new_page()
    asked.goto(f"{gateway.url}/trash")
    asked.get_by_label("Select media 1").check()
    asked.get_by_role("button", name="Remove for good").click()
    requests.post(f"{gateway.url}/api/media/1/restore", headers=gateway.as_user(456), timeout=30)
    asked.get_by_role("button", name="Remove 1 item for good").click()
    told = "Nothing was done with 1 item: not in the trash any more."
    expect(asked.get_by_role("alert")).to_have_text(told)
    requests.delete(f"{gateway.url}/api/media/1", headers=gateway.as_user(456), timeout=30)
    page.get_by_role("button", name="Remove 1 item for good").click()
    expect(page.get_by_role("status")).to_have_text("1 item is being removed for good.")
    expect(page.get_by_role("link", name="media 0")).to_be_visible()
    assert deletion.run(gateway.services, "run")["purged"] == 1


def test_many_are_picked_with_shift_deleted_and_the_deletion_undone(guest: Visitor, gateway: Gateway) -> None:
    for seed in range(1, 6):
        gateway.upload(456, product_image=picture(seed=seed))
    gateway.run_due()
    page = guest.go("/media")
    expect(page.locator("#picked")).to_have_text("0 selected")
    expect(page.get_by_role("button", name="Delete")).to_be_disabled()
    boxes = page.get_by_role("list", name="Images").get_by_role("checkbox")
    boxes.nth(1).click()
    boxes.nth(3).click(modifiers=["Shift"])
    expect(page.locator("#picked")).to_have_text("3 selected")
    page.get_by_role("button", name="Delete").click()
    page.get_by_role("button", name="Delete 3 images").click()
    expect(page.get_by_role("status")).to_have_text("3 images are deleted.")
    expect(page.locator(".gallery > li")).to_have_count(2)
    assert [gateway.get(f"/serve/{n}").status_code for n in range(1, 6)] == [200, 410, 410, 410, 200]
    row = audit.page(gateway.services.engine, limit=1)[0]
    assert (row["action"], row["subject"], row["after"]) == ("delete", "3 images", {"media": ["4", "3", "2"]})
    page.get_by_role("button", name="Undo").click()
    expect(page.get_by_role("status")).to_have_text("3 items are restored.")
    assert [gateway.get(f"/serve/{n}").status_code for n in range(1, 6)] == [200] * 5
    page.get_by_label("All on this page").check()
    expect(page.locator("#picked")).to_have_text("5 selected")
    with page.expect_download() as told:
        page.get_by_role("button", name="Download").click()
    with zipfile.ZipFile(told.value.path()) as archive:
        assert sorted(archive.namelist()) == [f"{n}.jpg" for n in range(1, 6)]
    page.get_by_role("button", name="Make private").click()  # the page is not blocked by the download
    expect(page.get_by_role("status")).to_have_text("5 images are private now.")
    assert gateway.get("/serve/3").status_code == 403


def test_what_somebody_else_deleted_before_is_neither_counted_nor_undone(guest: Visitor, gateway: Gateway) -> None:
    for seed in (1, 2):
        gateway.upload(456, product_image=picture(seed=seed))
    intake.take_in(gateway.services)
    page, late = guest.page, guest.page.context.new_page()
    for tab in (page, late):
        tab.goto(f"{gateway.url}/media")
        tab.get_by_label("All on this page").check()
        tab.get_by_role("button", name="Delete").click()
    requests.delete(f"{gateway.url}/api/media/1", headers=gateway.as_user(456), timeout=30)
    page.get_by_role("button", name="Delete 2 images").click()
    expect(page.get_by_role("status")).to_have_text("1 image is deleted.")
    expect(page.get_by_role("alert")).to_have_text("1 image was deleted already.")
    late.get_by_role("button", name="Delete 2 images").click()
    expect(late.get_by_role("alert")).to_have_text("2 images were deleted already.")
    expect(late.get_by_role("button", name="Undo")).not_to_be_attached()
    requests.post(f"{gateway.url}/api/media/2/restore", headers=gateway.as_user(456), timeout=30)
    page.get_by_role("button", name="Undo").click()
    expect(page.get_by_role("alert")).to_contain_text("These are not in the trash any more")


def test_of_all_images_only_those_that_were_asked_about_are_deleted_and_removed_for_good(
    guest: Visitor, gateway: Gateway
) -> None:
    for seed in (1, 2):
        gateway.upload(456, product_image=picture(seed=seed))
    gateway.run_due()
    page = guest.go("/media")
    for leave in (page.get_by_role("link", name="Cancel").click, page.reload, None):
        page.get_by_label("All images").check()
        page.get_by_role("button", name="Delete").click()
        expect(page.get_by_role("button", name="Delete 2 images")).to_be_visible()
        if leave:
            leave()
    gateway.finish(456, product_image=picture(seed=3))
    page.get_by_role("button", name="Delete 2 images").click()
    expect(page.get_by_role("status")).to_have_text("2 images are deleted.")
    page.go_back()
    expect(page.locator(".gallery > li")).to_have_count(1)
    guest.go("/trash")
    page.get_by_label("All of this trash").check()
    page.get_by_role("button", name="Remove for good").click()
    requests.delete(f"{gateway.url}/api/media/3", headers=gateway.as_user(456), timeout=30)
    requests.post(f"{gateway.url}/api/media/1/restore", headers=gateway.as_user(456), timeout=30)
    page.get_by_role("button", name="Remove 2 items for good").click()
    expect(page.get_by_role("status")).to_have_text("1 item is being removed for good.")
    left = gateway.rows("select what, purge_after > now() as kept from deletions order by what")
    assert [tuple(row) for row in left] == [("media/2", False), ("media/3", True)]


def test_listings_avatars_and_failures_are_picked_too(guest: Visitor, gateway: Gateway) -> None:
    image, _ = (listing(gateway, title=title)["images"][0] for title in ("Old bowl", "New bowl"))
    tasks = [requests.post(f"{gateway.url}/api/avatars/tasks", json={"count": 1}, timeout=30).json() for _ in "ab"]
    for seed in (1, 2):
        upload = gateway.upload(456, product_image=picture(seed=seed)).json()["images"][0]
        gateway.services.media_bucket.put(upload["image_path"][1:], b"not a picture", content_type="image/jpeg")
    gateway.run_due()
    page = guest.go("/failures")
    page.get_by_role("list").get_by_role("checkbox").first.check()
    page.get_by_role("button", name="Requeue", exact=True).first.click()
    expect(page.get_by_role("status")).to_have_text("1 item waits again, with fresh attempts.")
    expect(page.locator(".letter")).to_have_count(1)
    page.get_by_label("All in all queues").check()
    page.get_by_role("button", name="Delete", exact=True).click()
    page.get_by_role("button", name="Delete 1 item").click()
    expect(page.get_by_role("status")).to_have_text("1 item is deleted.")
    guest.go("/listings")
    with page.expect_download() as told:
        page.get_by_label("All on this page").check()
        page.get_by_role("button", name="Download").click()
    with zipfile.ZipFile(told.value.path()) as archive:
        assert sorted(archive.namelist()) == ["1 my bowl.jpg", "2 my bowl.jpg"]
    page.get_by_role("button", name="Delete", exact=True).click()
    page.get_by_role("button", name="Delete 2 images of listings").click()
    expect(page.get_by_text("No listing has images yet")).to_be_visible()
    assert gateway.get("/" + image["url"].split("/", 3)[3]).status_code == 410
    page.get_by_role("button", name="Undo").click()
    expect(page.get_by_role("status")).to_have_text("2 items are restored.")
    together = gateway.rows("select cast(xmin as text), count(*) from work_items where queue = 'listings' group by 1")
    assert [row[1] for row in together] == [2]  # one by one, thousands would take minutes
    guest.go("/avatars")
    for name in ("base.png", "bought/base-1.png"):
        gateway.services.avatars_bucket.put(f"avatars/task_2/persona_1/{name}", b"PNG", content_type="image/png")
    with page.expect_download() as told:
        page.get_by_label("Select Anybody").first.check()
        page.get_by_role("button", name="Download").click()
    with zipfile.ZipFile(told.value.path()) as archive:
        assert archive.namelist() == ["task_2/persona_1/base.png"]
    page.get_by_role("button", name="Delete", exact=True).click()
    page.get_by_role("button", name="Remove 1 request for people for good").click()
    expect(page.locator(".letter")).to_have_count(1)
    deletion.run(gateway.services, "run")
    left = requests.get(f"{gateway.url}/api/avatars/tasks", timeout=30).json()["tasks"]
    assert [one["task_id"] for one in left] == [tasks[0]["task_id"]]


def test_a_person_is_erased_and_the_page_says_so(guest: Visitor, gateway: Gateway) -> None:
    gateway.finish(456, product_image=picture())
    page = guest.go("/erasures")
    for number in ("0456", "456"):
        page.get_by_label("User id").fill(number)
        page.get_by_role("button", name="Erase all data of this user").click()
    expect(page.get_by_text("This user has: media 1.")).to_be_visible()
    page.get_by_role("button", name="Erase all data of user 456").click()
    expect(page.get_by_role("status")).to_contain_text("is being removed for good")
    assert gateway.get("/serve/1").status_code == 410
    deletion.run(gateway.services, "run")
    page.reload()
    expect(page.locator("tbody tr")).to_contain_text("0 objects, 0 rows")
