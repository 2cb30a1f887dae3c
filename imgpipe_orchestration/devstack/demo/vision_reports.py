"""Two organizations ask for reports on real photographs; one has a dead link and an expired one among them."""

from collections.abc import Iterator
from typing import Any

from imgpipe_orchestration.devstack.demo.scenario import Exhibit, Result, Stack
from imgpipe_orchestration.errors import SettingsError

_ORGANIZATIONS = {
    "LexCorp": "38162954-469A-40BC-B619-3E9F71DE6DB9",
    "Oceanix": "7D0C4A11-52E5-4C07-9C4B-0A9D6E1F2B34",
}
_ANALYSES: list[tuple[str, dict[str, Any]]] = [
    ("LexCorp", {"images": 3, "dead_link": True, "expired_sas": True}),
    ("Oceanix", {"images": 3}),
    ("LexCorp", {"images": 2}),
]
_ADDRESSES = ("EXTERNAL_API_GET_URL", "EXTERNAL_API_POST_URL", "EXTERNAL_API_KEY", "BACKEND_API_URL")


def vision_reports(stack: Stack, result: Result) -> Iterator[None]:
    """A cron job an organization over REST, each run at once; done when the external API has every report."""
    result.items = len(_ANALYSES)
    _seed(stack)
    begun = {name: _begin(stack, name) for name in _ORGANIZATIONS}
    done: list[dict[str, Any]] = []
    while not result.settled:
        waiting, analyses, failures = [], [], []
        for name, (path, execution_id) in begun.items():
            # Not the latest, which at the full hour is the schedule's.
            found = stack.operated("GET", f"{path}/executions")["executions"]
            execution = next(one for one in found if one["execution_id"] == execution_id)
            analyses += execution["analyses"]
            if execution["status"] == "running":
                waiting.append(name)
            elif execution["status"] == "failed" and not execution["total"]:
                failures.append(f"{name}: {execution['error']}")
        done = [one for one in analyses if one["status"] == "success"]
        failures += [f"{one['run_code']}: {one['error']}" for one in analyses if one["status"] == "failed"]
        result.failures = failures
        result.arrived, result.waiting_for = len(done), f"reports of {', '.join(waiting)}"
        yield
    lost = {one["run_code"]: (one["images_total"] or 0) - (one["images_usable"] or 0) for one in done}
    why = "a dead link or an expired one; the report says so of each"
    result.refused = {f"{images} images of {code}": why for code, images in lost.items() if images}
    result.exhibits = [
        Exhibit(
            f"The report on {one['run_code']}",
            document=stack.accepted("GET", f"/batch-analysis/batches/{one['batch_id']}/report").text,
        )
        for one in done
    ]


def _seed(stack: Stack) -> None:
    """Put the analyses into the stand-in of the external API."""
    base, found, _ = stack.environment["EXTERNAL_API_GET_URL"].partition("/vision-analysis/")
    if not found:
        problem = "EXTERNAL_API_GET_URL names a real API, and a demo puts nothing into that; use --only for others"
        raise SettingsError(problem)
    for name, seed in _ANALYSES:
        asks = {**seed, "organization_id": _ORGANIZATIONS[name], "organization_name": name}
        stack.accepted("POST", f"{base}/_standin/vision-analyses", json=asks)


def _begin(stack: Stack, name: str) -> tuple[str, str]:
    """Run the cron job of an organization: its path, and the id of the execution.

    It is the last demo's job, with these addresses, or a new one.
    """
    job = {
        "name": f"{name}: hourly vision analysis",
        "schedule": "0 * * * *",
        "organization_id": _ORGANIZATIONS[name],
        **{setting.lower(): stack.environment[setting] for setting in _ADDRESSES},
    }
    known = stack.operated("GET", "/cron-jobs")["jobs"]
    before = next((one["job_id"] for one in known if one["name"] == job["name"]), None)
    method, at = ("PATCH", f"/cron-jobs/{before}") if before else ("POST", "/cron-jobs")
    path = f"/cron-jobs/{stack.operated(method, at, job)['job_id']}"
    return path, stack.operated("POST", f"{path}/run")["execution_id"]
