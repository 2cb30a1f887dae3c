"""Every page with the demo's work on it: clean, within the screen, and pictured for the docs."""

import json
import re
from pathlib import Path

import pytest
from playwright.sync_api import expect

from imgpipe_orchestration.devstack import photos
from imgpipe_orchestration.devstack.demo import scenario
from imgpipe_orchestration.devstack.demo.runner import SCENARIOS, run
from imgpipe_orchestration_tests.end_to_end.conftest import Stack
from imgpipe_orchestration_tests.gateway.browser import Visitor
from imgpipe_orchestration_tests.gateway.conftest import Visit, browser, visit

__all__ = ["browser", "visit"]

LOOKS = [("light", 1280), ("dark", 390)]
JUST_WITH_MENU = 850
"""The narrowest screen, in pixels, that has the menu beside the page: the least room for a table."""
PHOTOS = ("coffee", "astronaut", "chelsea")
OF_SWAGGER = ("nested-interactive", "heading-order")
"""What axe finds in the structure of Swagger UI's own pages."""
HOUSEKEEPING = ("review", "spending", "trash", "erasures", "keys", "audit")
"""Pages of no pipeline."""
LIVELY = {"overview", "upload"}
"""Pages that change by themselves while one looks, and may move for it."""
_SHIFTS = """
window.shift = 0;
new PerformanceObserver((list) => {
  for (const e of list.getEntries()) window.shift += e.hadRecentInput ? 0 : e.value;
}).observe({ type: "layout-shift", buffered: true });
"""


@pytest.fixture(scope="module")
def pages(stack: Stack) -> dict[str, str]:
    """The pages by the name of their picture, once the demo has been through."""
    demo = scenario.Stack(stack.environment)
    results = run(demo, SCENARIOS, lambda _: None)
    assert all(result.finished for result in results), results
    ((image,),) = stack.rows("select max(id) from media_files where data_type = 'product' and status = 'completed'")
    ((other,),) = stack.rows("select min(id) from media_files where status = 'completed'")
    demo.operated("DELETE", f"/api/media/{other}")  # the trash shows it
    ((task,),) = stack.rows("select task_id from generation_tasks order by id desc limit 1")
    ((job,),) = stack.rows("select job_id from cron_jobs order by id desc limit 1")
    ((queue, item),) = stack.rows("select queue, item_id from work_items where state = 'failed' limit 1")
    return {
        "overview": "/",
        "media": "/media",
        "image": f"/media/{image}",
        "upload": "/upload",
        "listings": "/listings",
        "processing": "/processing",
        "vision-reports": f"/vision-reports/{job}",
        "vision-reports-all": "/vision-reports",
        "vision-reports-edit": f"/vision-reports/{job}/edit",
        "avatars": f"/avatars/{task}",
        "avatars-all": "/avatars",
        "failures": "/failures",
        "failure": f"/failures/{queue}/{item}",
        **{name: f"/{name}" for name in HOUSEKEEPING},
        "components": f"/components?media={image}",
        "docs": "/docs",
        "not-there": "/nothing-here",
    }


@pytest.mark.slow
@pytest.mark.parametrize(("scheme", "width"), LOOKS)
def test_every_page_full_of_work_is_accessible_stands_still_and_fits_the_screen(
    stack: Stack, pages: dict[str, str], visit: Visit, tmp_path: Path, scheme: str, width: int
) -> None:
    found: dict[str, list[str]] = {}
    with visit(stack.gateway, color_scheme=scheme, viewport={"width": width, "height": 860}) as guest:
        guest.allowed = ["403", "404", "415"]  # of held images, of the page that is not there, of what is no image
        guest.page.add_init_script(_SHIFTS)
        for name, path in pages.items():
            page = guest.go(path)
            page.wait_for_load_state("networkidle" if name == "docs" else "load")
            if name == "upload":
                _send(guest, stack.new_user(), tmp_path, *(PHOTOS if (scheme, width) == LOOKS[0] else PHOTOS[:1]))
            problems = guest.axe()
            if name == "docs":
                problems = [problem for problem in problems if not problem.startswith(OF_SWAGGER)]
            if name not in LIVELY and (shift := _shift(guest, path)):
                problems.append(f"layout shift {shift}")
            guest.picture(name if (scheme, width) == LOOKS[0] else f"{name}-{scheme}-{width}")
            for wide in {width, min(width, JUST_WITH_MENU)}:
                page.set_viewport_size({"width": wide, "height": 860})
                if page.evaluate("document.documentElement.scrollWidth > innerWidth"):
                    problems.append(f"wider than a screen of {wide} pixels")
            page.set_viewport_size({"width": width, "height": 860})
            if problems:
                found[path] = problems
    assert not found, json.dumps(found, indent=1)


def _shift(guest: Visitor, path: str) -> float:
    """The layout shift of the open page; looked at again when there is some, for a busy machine may paint a page before
    all of it has come, and a table's columns then move. A page that moves by itself does so each time."""
    shift: float = guest.page.evaluate("window.shift")
    if shift:
        guest.go(path).wait_for_load_state("load")
        shift = min(shift, guest.page.evaluate("window.shift"))
    return shift


@pytest.mark.slow
def test_every_page_of_a_pipeline_leads_to_its_runs_and_assets(
    stack: Stack, pages: dict[str, str], visit: Visit
) -> None:
    with visit(stack.gateway) as guest:
        guest.allowed = ["403"]  # of held images
        for name, path in pages.items():
            if name in {"components", "docs", "not-there", "vision-reports-edit", *HOUSEKEEPING}:
                continue
            page = guest.go(path)
            targets = [link.get_attribute("href") or "" for link in page.locator("main a[rel=noreferrer]").all()]
            assert any("/runs" in target for target in targets), path
            assert any(re.search("/asset", target) for target in targets), path


def _send(guest: Visitor, user: int, folder: Path, *names: str) -> None:
    for name in names:
        (folder / f"{name}.jpg").write_bytes(photos.jpeg(name))
    (folder / "notes.jpg").write_text("this is no photograph")
    page = guest.page
    page.get_by_text("Choose another").click()
    page.get_by_label("User").fill(str(user))
    page.locator("#files").set_input_files([folder / f"{name}.jpg" for name in (*names, "notes")])
    expect(page.get_by_text("Ready", exact=True)).to_have_count(len(names), timeout=90_000)
    expect(page.locator("smart-image .box.there")).to_have_count(len(names))
    expect(page.locator(".state.bad")).to_have_count(1)
