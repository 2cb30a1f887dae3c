"""The pages of vision reports as a person goes through them: a cron job is filled in, created, renamed, turned off."""

from __future__ import annotations

from playwright.sync_api import Page, expect


def fill_in(page: Page, *, organization: str, schedule: str, listing: str, upload: str, token: str) -> None:
    """The form of a new cron job, called Morning reports."""
    page.get_by_label("Name").fill("Morning reports")
    page.get_by_label("Organization").fill(organization)
    page.get_by_label("Schedule").fill(schedule)
    page.get_by_label("Address that lists analyses").fill(listing)
    page.get_by_label("Address that takes reports").fill(upload)
    page.get_by_label("Bearer token of both").fill(token)


def create_rename_and_switch_off(page: Page) -> None:
    """Send the form off; leaves the page of the job, by then called Evening reports."""
    page.get_by_role("button", name="Create").click()
    expect(page.get_by_role("heading", name="It has not run yet")).to_be_visible()
    page.get_by_role("link", name="Edit").click()
    page.get_by_label("Name").fill("Evening reports")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_role("heading", name="Evening reports")).to_be_visible()
    page.get_by_role("button", name="Switch off").click()
    expect(page.get_by_role("status")).to_contain_text("Switched off")
