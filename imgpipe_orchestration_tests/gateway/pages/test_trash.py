"""The trash and people's erasures, by mouse."""

from __future__ import annotations

from playwright.sync_api import expect

from imgpipe_orchestration.lifecycle import work
from imgpipe_orchestration.storage.deletions import PURGES
from imgpipe_orchestration_tests.gateway.browser import Visitor
from imgpipe_orchestration_tests.gateway.pages.rows import fail
from imgpipe_orchestration_tests.media.conftest import Gateway, picture


def test_an_image_is_deleted_restored_and_removed_for_good(guest: Visitor, gateway: Gateway) -> None:
    gateway.upload(456, product_image=picture())
    gateway.run_due()
    page = guest.go("/media/1")
    page.on("dialog", lambda dialog: dialog.accept())
    page.get_by_role("button", name="Delete", exact=True).click()
    expect(page.get_by_role("status")).to_contain_text("can be restored until")
    assert guest.axe() == []
    assert gateway.get("/serve/1").status_code == 410
    page.get_by_role("button", name="Restore media 1").click()
    expect(page.get_by_role("status")).to_contain_text("is restored")
    assert gateway.get("/serve/1").status_code == 200
    guest.go("/media/1")
    page.get_by_role("button", name="Delete", exact=True).click()
    page.get_by_role("button", name="Purge now media 1").click()
    expect(page.get_by_role("status")).to_contain_text("is being removed for good")
    assert work.run(gateway.services, "run")["purged"] == 1


def test_a_person_is_erased_and_the_page_follows_it(guest: Visitor, gateway: Gateway) -> None:
    gateway.upload(456, product_image=picture())
    gateway.run_due()
    page = guest.go("/erasures")
    page.on("dialog", lambda dialog: dialog.accept())
    page.get_by_label("User id").fill("456")
    page.get_by_role("button", name="Erase everything of this user").click()
    expect(page.get_by_role("status")).to_contain_text("is being removed for good")
    assert guest.axe() == []
    assert gateway.get("/serve/1").status_code == 410
    work.run(gateway.services, "run")
    expect(page.locator("tbody tr")).to_contain_text("0 objects, 0 rows", timeout=60_000)


def test_what_cannot_be_removed_is_among_the_failures(guest: Visitor, gateway: Gateway) -> None:
    fail(gateway.services, PURGES, [5], "The object store refused (AccessDenied).")
    page = guest.go("/failures")
    expect(page.locator(".letter")).to_contain_text("The object store refused (AccessDenied).")
    page.get_by_role("button", name="Requeue purges 5").click()
    expect(page.get_by_role("status")).to_contain_text("1 item waits again")
