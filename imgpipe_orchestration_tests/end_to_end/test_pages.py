"""The pages over the running stack: what a person asks for in the browser is done by the daemon and shown there."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator

import pytest
from playwright.sync_api import expect

from imgpipe_orchestration.devstack import photos
from imgpipe_orchestration_tests.end_to_end.conftest import Stack
from imgpipe_orchestration_tests.gateway.browser import Visitor
from imgpipe_orchestration_tests.gateway.conftest import Visit, browser, visit

__all__ = ["browser", "visit"]

PATIENCE = 90_000
"""Milliseconds for what passes through a sensor and a run."""


@pytest.fixture
def guest(stack: Stack, visit: Visit) -> Iterator[Visitor]:
    with visit(stack.gateway) as somebody:
        yield somebody


@pytest.mark.slow
def test_every_link_to_dagster_leads_to_something(stack: Stack, guest: Visitor) -> None:
    query = """{ repositoriesOrError { ... on RepositoryConnection { nodes { location { name }
        assetGroups { groupName } } } } }"""
    (repository,) = stack.graphql(query)["repositoriesOrError"]["nodes"]
    groups = {group["groupName"] for group in repository["assetGroups"]}
    page = guest.go("/")
    links = [a.get_attribute("href") or "" for a in page.get_by_role("link", name="assets of").all()]
    named = {tuple(link.split("/locations/")[1].split("/asset-groups/")) for link in links}
    pipelines = groups - {"lifecycle", "moderation"}  # which no card is about
    assert named == {(repository["location"]["name"], group) for group in pipelines} and len(links) == 5


@pytest.mark.slow
def test_two_browsers_follow_the_figures_through_a_restart_of_the_gateway(stack: Stack, visit: Visit) -> None:
    with visit(stack.gateway) as one, visit(stack.gateway) as two:
        for each in (one, two):
            each.allowed = ["ERR_CONNECTION_REFUSED", "ERR_INCOMPLETE_CHUNKED", "ERR_CONNECTION_RESET", "502"]
            expect(each.go("/").get_by_text("Live, as of")).to_be_visible()
        done = "li:has(a[href='/media']) dl > div:has-text('done today') dd"
        before = one.page.locator(done).inner_text()
        os.kill(stack.up.part("gateway")["pid"], signal.SIGKILL)
        for each in (one, two):
            expect(each.page.get_by_text("Not connected; figures of")).to_be_visible()
        for each in (one, two):
            expect(each.page.get_by_text("Live, as of")).to_be_visible(timeout=PATIENCE)
        stack.upload(stack.new_user(), profile_image=photos.jpeg("astronaut"))
        for each in (one, two):
            expect(each.page.locator(done)).not_to_have_text(before, timeout=PATIENCE)


PATHS = ("/", "/media", "/upload", "/listings", "/processing", "/vision-reports", "/vision-reports/new", "/avatars",
         "/failures", "/components", "/nothing-here")  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_page_is_accessible_and_fits_the_screen(stack: Stack, visit: Visit, scheme: str, width: int) -> None:
    found: dict[str, list[str]] = {}
    with visit(stack.gateway, color_scheme=scheme, viewport={"width": width, "height": 844}) as guest:
        guest.allowed = ["404"]  # of the page that is not there
        for path in PATHS:
            page = guest.go(path)
            problems = guest.axe()
            if page.evaluate("document.documentElement.scrollWidth > innerWidth"):
                problems.append("wider than the screen")
            if problems:
                found[path] = problems
    assert not found, json.dumps(found, indent=1)
