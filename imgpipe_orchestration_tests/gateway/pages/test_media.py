"""Upload, gallery, one image, search: what people do with their photographs."""

import json
import re
from pathlib import Path
from typing import Any

import requests
from playwright.sync_api import expect
from sqlalchemy import event

from imgpipe_orchestration.devstack import photos
from imgpipe_orchestration.errors import Conflict
from imgpipe_orchestration.gateway.pages.media import states
from imgpipe_orchestration.media import intake
from imgpipe_orchestration.media.store import MEDIA
from imgpipe_orchestration_tests.gateway.browser import Visitor
from imgpipe_orchestration_tests.gateway.conftest import Visit
from imgpipe_orchestration_tests.gateway.pages.rows import fail
from imgpipe_orchestration_tests.media.conftest import Gateway, picture


def test_photographs_are_uploaded_followed_found_and_looked_at(
    seeing_gateway: Gateway, visit: Visit, tmp_path: Path
) -> None:
    gateway = seeing_gateway
    files = {
        "coffee.jpg": photos.jpeg("coffee"),
        "cat.jpg": photos.jpeg("chelsea"),
        "astronaut.jpg": photos.jpeg("astronaut"),
        "torn.jpg": photos.jpeg("chelsea")[:9000],
        "notes.jpg": b"this is no image",
        "nothing.jpg": b"",
    }
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    with visit(gateway.url) as guest:
        guest.allowed = ["415"]
        page = guest.go("/media")
        expect(page.get_by_role("heading", name="No images yet")).to_be_visible()
        assert guest.axe() == []
        page.get_by_role("link", name="from this browser").click()
        page.get_by_label("What they are").select_option("product_image")
        page.locator("#files").set_input_files([tmp_path / name for name in files])
        expect(page.get_by_text("Accepted; waits to be processed")).to_have_count(4)
        bad = {name: page.locator(".file").filter(has_text=name) for name in ("notes.jpg", "nothing.jpg")}
        said = re.compile("^Not an image but plain text: send JPEG, .* HEIC, .* or BMP.$")
        expect(bad["notes.jpg"].locator(".bad")).to_have_text(said)
        expect(bad["nothing.jpg"]).to_contain_text("0 bytes")
        expect(bad["nothing.jpg"].locator(".bad")).to_contain_text("The file is empty, so it was not sent.")
        gateway.run_due()
        expect(page.get_by_text("Ready", exact=True)).to_have_count(3)
        expect(page.locator(".file", has_text="torn.jpg").locator(".bad")).to_contain_text("Ask for it to be re-saved")
        expect(page.locator("smart-image .box.there")).to_have_count(3)

        page = guest.go("/media?type=product")
        expect(page.locator("smart-image .box.there")).to_have_count(3)
        page.locator(".tile", has_not_text="failed").first.click()
        expect(page.get_by_role("heading", name="Variants")).to_be_visible()
        expect(page.locator("smart-image .box.there").first).to_be_visible()
        expect(page.get_by_role("link", name="avif of thumbnail")).to_be_visible()
        expect(page.get_by_role("cell", name="done")).to_be_visible()
        expect(page.get_by_text("A local stand-in for Google Vision and OpenAI vision made this up")).to_be_visible()

        page.get_by_role("link", name="See the components with this image").click()
        page.get_by_label("size").select_option("thumbnail")
        expect(page.locator("#written")).to_contain_text('size="thumbnail"')
        expect(page.locator("smart-image .box.there")).to_be_visible()
        page.go_back()

        colour = page.locator(".colours a").first
        colour.click()
        expect(page.locator(".tile").first).to_contain_text("colour")
        expect(page.get_by_role("link", name="Clear the search")).to_be_visible()
        page.get_by_label("Words, a file name or a number").fill("3")
        page.keyboard.press("Enter")
        expect(page.locator(".tile")).not_to_have_count(0)
        expect(page.locator(".tile").first).to_contain_text("number")


def test_the_gallery_follows_what_is_uploaded_and_keeps_the_tiles_that_stay(guest: Visitor, gateway: Gateway) -> None:
    page = guest.go("/media")
    expect(page.get_by_role("heading", name="No images yet")).to_be_visible()
    gateway.finish(1, profile_image=picture())
    expect(page.locator("smart-image .box.there")).to_have_count(1, timeout=60_000)
    page.locator(".tile").evaluate("tile => { tile.marked = true }")
    gateway.finish(1, profile_image=picture(seed=2))
    expect(page.locator("smart-image .box.there")).to_have_count(2, timeout=60_000)
    assert page.locator(".tile").nth(1).evaluate("tile => tile.marked"), "it was not drawn again"


def test_files_are_taken_wherever_they_are_dropped_and_so_is_what_is_in_a_folder(
    guest: Visitor, tmp_path: Path
) -> None:
    photograph, folder = tmp_path / "me.png", tmp_path / "holiday"
    photograph.write_bytes(picture(40, 30, format="PNG"))
    (folder / "beach").mkdir(parents=True)
    (folder / "beach" / "sea.png").write_bytes(picture(40, 30, seed=2, format="PNG"))
    (folder / "notes.txt").write_text("Sunny.")
    page = guest.go("/upload")
    hand = page.context.new_cdp_session(page)
    dropped: Any = {"items": [], "files": [str(photograph), str(folder)], "dragOperationsMask": 1}
    for step in ("dragEnter", "dragOver", "drop"):  # at the page's lower edge
        hand.send("Input.dispatchDragEvent", {"type": step, "x": 900, "y": 850, "data": dropped})
    expect(page.locator(".file", has_text="me.png")).to_contain_text("Accepted")
    expect(page.locator(".file", has_text="sea.png")).to_contain_text("Accepted")
    expect(page.locator(".file")).to_have_count(2)
    assert len(page.context.pages) == 1, "nothing was opened"


def test_who_waits_for_a_file_that_is_sent_again_is_not_told_to_send_it(
    guest: Visitor, gateway: Gateway, tmp_path: Path
) -> None:
    (tmp_path / "me.png").write_bytes(picture(40, 30, format="PNG"))
    told = "The database cannot be reached. What was accepted waits and goes on by itself; send anything else again."
    guest.allowed = ["503"]
    page = guest.go("/upload")
    page.get_by_text("Choose another").click()
    page.get_by_label("User id").fill("007")
    page.route("**/upload?*", lambda route: route.fulfill(status=503, json={"detail": told}))
    page.locator("#files").set_input_files(tmp_path / "me.png")
    said = "Not taken yet; it is sent again. The database cannot be reached."
    expect(page.locator(".file .state")).to_have_text(said)
    page.unroute_all()
    expect(page.locator(".file .state")).to_contain_text("Accepted")
    assert gateway.rows("select user_id from pending_images") == [(7,)]


def test_an_image_page_follows_the_image_and_a_failed_one_is_requeued(guest: Visitor, gateway: Gateway) -> None:
    gateway.finish(1, profile_image=picture()[:3000])
    page = guest.go("/media/1")
    expect(page.locator(".notice.bad")).to_be_visible()
    page.get_by_role("button", name="Requeue").click()
    expect(page.get_by_role("status").first).to_contain_text("waits again")
    gateway.run_due("run-2")
    expect(page.get_by_role("button", name="Requeue")).to_be_visible()
    guest.allowed = ["404"]
    expect(guest.go("/media/77").get_by_text("There is no media 77.")).to_be_visible()


def test_what_another_worker_has_is_no_failure_to_requeue(guest: Visitor, gateway: Gateway) -> None:
    gateway.upload(1, profile_image=picture())
    intake.take_in(gateway.services)
    url = f"{gateway.url}/api/media/complete/1"
    answer = requests.post(url, json={"media_id": "ext-900"}, headers=gateway.as_worker, timeout=30)
    assert answer.status_code == 200
    page = guest.go("/media/1")
    said = page.get_by_text("Processed by another worker as media ext-900. There is nothing to do.")
    expect(said).to_have_class("notice")
    expect(page.get_by_role("heading", level=1)).to_contain_text("dropped")
    expect(page.get_by_role("button", name="Delete")).to_be_visible()
    expect(page.get_by_role("button", name="Requeue")).not_to_be_attached()
    engine, held = gateway.services.engine, set()
    event.listen(engine, "checkout", lambda *_: held.add(engine.pool.checkedout()))  # type: ignore[attr-defined]
    told = json.loads(bytes(states(gateway.services, None, "1,77").body))  # type: ignore[arg-type]
    assert "Retry" not in told["1"]["error"] and told["77"]["status"] == "waiting"
    assert held == {1}, "with two at a time, pages that wait for each other's could take all"
    expect(guest.go("/media").locator(".gallery")).to_contain_text("dropped")
    fail(gateway.services, MEDIA, [2], Conflict("The main API no longer wants image 2"))  # as one elsewhere answers
    expect(guest.go("/failures").locator(".letter")).to_contain_text("retrying does not change it")


def test_a_private_image_is_shown_among_the_components_and_what_to_write_says_it_is_signed(
    guest: Visitor, gateway: Gateway
) -> None:
    gateway.finish(7, profile_image=picture())
    gateway.rows("update media_files set private = true returning id")
    page = guest.go("/media/1")
    expect(page.get_by_text("?size=detail&signature=…")).to_be_visible()
    page.get_by_role("link", name="See the components with this image").click()
    expect(page.locator("smart-image .box.there")).to_be_visible()
    page.get_by_label("size").select_option("thumbnail")
    expect(page.locator("#written")).to_contain_text('size="thumbnail"')
    expect(page.locator("#written")).to_contain_text('signature="…"')
    guest.allowed = ["403"]
    page.locator("smart-image").evaluate("image => image.setAttribute('signature', 'expired')")
    expect(page.get_by_text("This image may not be shown here.")).to_be_visible()
    expect(page.locator("smart-image canvas")).to_have_css("visibility", "hidden")  # the words are read on its ground


def test_what_to_write_for_a_picture_is_markup_whatever_its_words_are(guest: Visitor, gateway: Gateway) -> None:
    """They come from an analysis, which words in a picture can lead."""
    words = '12" vinyl <b> onload="x" & more'
    gateway.finish(7, profile_image=picture())
    gateway.rows("update media_ai_analysis set alt_text = :words returning 1", words=words)
    page = guest.go("/components?media=1")
    element = "text => new DOMParser().parseFromString(text, 'text/html').querySelector('smart-image')"
    for _ in ("as the page comes", "after a choice"):
        written = page.locator("#written").inner_text()
        assert page.evaluate(f"{element}.getAttribute('alt')", written) == words
        assert "onload" not in page.evaluate(f"{element}.getAttributeNames()", written)
        page.get_by_label("size").select_option("thumbnail")
