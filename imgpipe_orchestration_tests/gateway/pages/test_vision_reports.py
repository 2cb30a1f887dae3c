"""The pages of vision reports: cron jobs are created, mended, run, and their reports opened."""

import re
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import dagster as dg
import pytest
from playwright.sync_api import Page, expect

from imgpipe_orchestration_tests.conftest import StandInAccess
from imgpipe_orchestration_tests.gateway.browser import Visitor
from imgpipe_orchestration_tests.gateway.conftest import Visit
from imgpipe_orchestration_tests.media.conftest import Gateway
from imgpipe_orchestration_tests.partners.test_vision_analysis import entry
from imgpipe_orchestration_tests.partners.test_vision_analysis import listing as listed
from imgpipe_orchestration_tests.partners.wire import reply, serving
from imgpipe_orchestration_tests.vision_reports.conftest import runnable
from imgpipe_orchestration_tests.vision_reports.test_routes import DOCUMENTED

MakeGateway = Callable[..., Gateway]


def fill_in(page: Page, listing: str, *, schedule: str, token: str) -> None:
    """The form of a new cron job for acme, called Morning reports."""
    page.get_by_label("Name").fill("Morning reports")
    page.get_by_label("Organization").fill("acme")
    page.get_by_label("Schedule").fill(schedule)
    page.get_by_label("Address that lists analyses").fill(listing)
    page.get_by_label("Address that takes reports").fill(f"{listing}/upload")
    page.get_by_label("Bearer token of both").fill(token)


def run(job: str) -> None:
    """What the daemon would do, with the job's own executor."""
    with dg.DagsterInstance.local_temp() as instance:
        dg.execute_job(runnable(job), instance=instance)


@pytest.mark.slow
def test_a_cron_job_is_created_mended_run_and_its_report_opened(
    make_gateway: MakeGateway, visit: Visit, standins: StandInAccess, monkeypatch: pytest.MonkeyPatch
) -> None:
    gateway = make_gateway(
        openai_api_key=f"key-{uuid.uuid4()}",
        openai_base_url=standins.openai_url,
        allowed_private_hosts=standins.url.removeprefix("http://"),
        backend_api_url="",  # follows the gateway
    )
    for name, value in gateway.settings.environment().items():
        monkeypatch.setenv(name, value)
    standins.admin("POST", "vision-analyses", {"organization_id": "acme"})
    with visit(gateway.url) as guest:
        guest.allowed = ["422"]
        page = guest.go("/vision-reports")
        assert guest.axe() == []
        page.get_by_role("link", name="Create the first one").click()
        fill_in(page, standins.analyses_url, schedule="every morning", token="customer-token-5f1c0a7be2")
        page.get_by_role("button", name="Create").click()
        expect(page.get_by_role("alert")).to_be_visible()
        expect(page.get_by_label("Schedule")).to_have_attribute("aria-invalid", "true")
        expect(page.get_by_label("Name")).to_have_value("Morning reports")
        expect(page.get_by_label("Bearer token of both")).to_have_value("customer-token-5f1c0a7be2")
        page.get_by_label("Schedule").fill("0 6 * * *")
        page.get_by_role("button", name="Create").click()
        expect(page.get_by_role("heading", name="It has not run yet")).to_be_visible()
        page.get_by_role("link", name="Edit").click()
        page.get_by_label("Name").fill("Evening reports")
        page.get_by_role("button", name="Save").click()
        expect(page.get_by_role("heading", name="Evening reports")).to_be_visible()
        page.get_by_role("link", name="Edit").click()
        page.get_by_role("button", name="Save").click()  # nothing was changed
        expect(page.get_by_role("status")).to_contain_text("Saved.")
        page.get_by_role("button", name="Switch off").click()
        expect(page.get_by_role("status")).to_contain_text("Switched off")
        page.get_by_role("button", name="Run now").click()
        expect(page.get_by_text("running", exact=True)).to_be_visible()
        here = page.url.partition("?")[0]
        # In threads: the browser's library has an event loop running in this one, and Dagster starts its own. The run
        # of the reports waits for the batch, which a run of our own backend works on meanwhile.
        with ThreadPoolExecutor(2) as workshop:
            reports = workshop.submit(run, "vision_reports")
            while not reports.done():
                workshop.submit(run, "vision_batches").result()
        page.goto(here)
        page.goto(f"{gateway.url}/vision-reports")
        expect(page.get_by_text("success", exact=True)).to_be_visible()
        page.goto(here)
        page.get_by_role("link", name="open the report").click()
        expect(page.get_by_text("Vision report", exact=False).first).to_be_visible()
        gateway.rows("delete from vision_batches returning 1")  # as its purge does
        page.goto(here)
        expect(page.get_by_role("cell", name="success")).to_be_visible()
        expect(page.get_by_role("link", name="open the report")).to_have_count(0)
        page.on("dialog", lambda dialog: dialog.accept())
        page.get_by_role("button", name="Delete").click()
        expect(page.get_by_role("heading", name="No cron jobs yet")).to_be_visible()


def test_a_connection_is_tried_before_it_is_saved(
    make_gateway: MakeGateway, visit: Visit, standins: StandInAccess
) -> None:
    gateway = make_gateway(allowed_private_hosts="127.0.0.1")
    standins.admin("POST", "vision-analyses", {"organization_id": "acme"})
    processed = listed(entry("done", is_processed=True))
    with serving(lambda handler, _: reply(handler, processed)) as no_filter, visit(gateway.url) as guest:
        page = guest.go("/vision-reports/new")
        fill_in(page, standins.analyses_url, schedule="0 6 * * *", token="a-token")
        page.get_by_role("button", name="Test connection").click()
        expect(page.get_by_role("status")).to_contain_text("The connection works: the API answered")
        expect(page.get_by_label("Bearer token of both")).to_have_value("a-token")
        page.get_by_label("Address that lists analyses").fill(no_filter.url)
        page.get_by_role("button", name="Test connection").click()
        expect(page.get_by_role("status")).to_contain_text("no analysis of its first page is waiting")
        page.get_by_label("Address that lists analyses").fill(f"{standins.url}/nothing-here")
        page.get_by_role("button", name="Test connection").click()
        expect(page.get_by_role("alert")).to_contain_text("The connection does not work.")
        assert not gateway.rows("select 1 from cron_jobs")


def test_what_another_person_changed_while_a_form_was_open_stays(guest: Visitor, gateway: Gateway) -> None:
    job = f"/cron-jobs/{gateway.session.post(f'{gateway.url}/cron-jobs', json=DOCUMENTED, timeout=30).json()['job_id']}"
    gateway.session.patch(gateway.url + job, json={"backend_api_url": "https://off.example"}, timeout=30)
    guest.allowed = ["422"]
    page = guest.go(job.replace("cron-jobs", "vision-reports") + "/edit")
    gateway.session.patch(gateway.url + job, json={"schedule": "0 7 * * *"}, timeout=30).raise_for_status()
    page.get_by_label("Name").fill("x" * 500)
    page.get_by_role("button", name="Save").click()
    page.get_by_label("Name").fill("Evening 'reports'")
    page.get_by_label("Analysis backend").fill("")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_role("status")).to_contain_text("Saved.")
    now = gateway.get(job).json()
    assert (now["name"], now["schedule"]) == ("Evening 'reports'", "0 7 * * *")
    assert now["backend_api_url"] == gateway.settings.backend_api_url


def test_all_that_is_wrong_with_a_cron_job_is_said_at_its_fields(guest: Visitor) -> None:
    guest.allowed = ["422"]
    page = guest.go("/vision-reports/new")
    fill_in(page, "https://api.example/analyses", schedule="every morning", token="a token")
    page.get_by_label("Name").fill("x" * 500)
    page.get_by_label("Time zone").fill("Atlantis")
    page.get_by_label("Half price").check()
    page.get_by_role("button", name="Create").click()
    expect(page.get_by_role("alert")).to_contain_text("Check these: Name, Schedule, Time zone, Bearer token of both.")
    for name, told in {
        "Name": "String should have at most 200 characters.",
        "Schedule": "Must have the five fields",
        "Time zone": "'Atlantis' is not known; use a name such as Europe/Berlin.",
        "Bearer token of both": "Must be a token",
    }.items():
        expect(page.get_by_label(name)).to_have_attribute("aria-invalid", "true")
        expect(page.get_by_label(name)).to_have_accessible_description(re.compile(f"^{re.escape(told)}"))
    for name, typed in {"Organization": "acme", "Schedule": "every morning", "Time zone": "Atlantis"}.items():
        expect(page.get_by_label(name)).to_have_value(typed)
    expect(page.get_by_label("Organization")).not_to_have_attribute("aria-invalid", "true")
    page.locator("main [name=form_token]").evaluate("token => { token.value = 'of a session that has ended' }")
    page.get_by_role("button", name="Create").click()
    expect(page.get_by_role("alert")).to_contain_text("The page was out of date")
    expect(page.get_by_label("Schedule")).to_have_value("every morning")
    expect(page.get_by_label("Half price")).to_be_checked()
