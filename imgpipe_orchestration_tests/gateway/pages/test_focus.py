"""The crops of an image on its page, and the frame that they keep."""

import pytest
from playwright.sync_api import expect

from imgpipe_orchestration.media.remake import make_variants
from imgpipe_orchestration_tests.gateway.browser import Visitor
from imgpipe_orchestration_tests.media.conftest import Gateway, picture
from imgpipe_orchestration_tests.media.worker import today

pytestmark = pytest.mark.slow


def test_the_frame_of_the_crops_is_drawn_on_the_picture_and_its_page_shows_what_became_of_it(
    gateway: Gateway, guest: Visitor
) -> None:
    gateway.finish(1, profile_image=picture(600, 300, seed=4))
    page = guest.go("/media/1")
    found = gateway.rows("select focus from media_files")[0][0]
    expect(page.get_by_text(f"found automatically: {found['reason']}")).to_be_visible()
    crop = page.get_by_role("img", name="The thumbnail crop")
    address = crop.get_attribute("src")
    assert guest.axe() == []
    page.set_viewport_size({"width": 360, "height": 740})
    sides = "crop => [crop.width / crop.height, crop.naturalWidth / crop.naturalHeight]"
    shown, made = page.get_by_role("img", name="The header crop").evaluate(sides)
    assert shown == pytest.approx(made, 0.02), "beside it the ground that means transparency would be seen"
    page.set_viewport_size({"width": 1280, "height": 860})

    frame = page.locator(".frame")
    frame.scroll_into_view_if_needed()
    place = frame.bounding_box()
    assert place is not None
    page.mouse.move(place["x"] + 0.9 * place["width"], place["y"] + 0.8 * place["height"])
    page.mouse.down()
    page.mouse.move(place["x"] + 0.7 * place["width"], place["y"] + 0.4 * place["height"])
    page.mouse.up()
    for side, percent in {"Left": 70, "Top": 40, "Right": 90, "Bottom": 80}.items():
        assert float(page.get_by_label(side).input_value()) == pytest.approx(percent, abs=0.5)
    page.get_by_role("button", name="Remake the crops").click()
    expect(page.get_by_text("Making the crops again around this focus.")).to_be_visible()
    expect(page.get_by_text("being remade")).to_be_visible()
    assert len(make_variants(gateway.services, "run", today()).outcome.done) == 1
    expect(page.get_by_text("being remade")).to_have_count(0)
    expect(page.get_by_text("set by hand")).to_be_visible()
    assert crop.get_attribute("src") != address
    box = gateway.rows("select focus -> 'box' from media_files")[0][0]
    assert box == pytest.approx([0.7, 0.4, 0.9, 0.8], abs=0.005)

    page.get_by_label("Left").fill("95")
    page.get_by_role("button", name="Remake the crops").click()
    expect(page.get_by_text("Nothing was changed: left must be less than right")).to_be_visible()
    page.get_by_role("button", name="Use automatic focus").click()
    expect(page.get_by_text("not found yet")).to_be_visible()
    assert len(make_variants(gateway.services, "run", today()).outcome.done) == 1
    expect(page.get_by_text(f"found automatically: {found['reason']}")).to_be_visible()
    expect(crop).to_have_attribute("src", address or "")
    page.locator(".frame").click()  # in its middle
    assert [float(page.get_by_label(side).input_value()) for side in ("Left", "Right")] == pytest.approx([42, 58], 0.02)
