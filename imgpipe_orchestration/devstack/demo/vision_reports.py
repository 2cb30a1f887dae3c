"""Two organizations ask for reports on real photographs; one has a dead link and an expired one among them."""

from __future__ import annotations

from typing import Any

from imgpipe_orchestration.devstack import photos
from imgpipe_orchestration.devstack.demo.scenario import Exhibit, Progress, Refusal, Scenario, Stack
from imgpipe_orchestration.errors import SettingsError

_ORGANIZATIONS = {
    "LexCorp": "38162954-469A-40BC-B619-3E9F71DE6DB9",
    "Oceanix": "7D0C4A11-52E5-4C07-9C4B-0A9D6E1F2B34",
}
_STANDIN = "/vision-analysis/"
_WHY = "a dead link or an expired one; the report says so of each"


class VisionReportsScenario(Scenario):
    """A cron job an organization over REST, each run at once; done when the external API has every report."""

    pipeline = "vision_reports"
    items = 3

    def __init__(self, stack: Stack) -> None:
        super().__init__(stack)
        self._begun: dict[str, tuple[str, str]] = {}
        self._done: list[dict[str, Any]] = []

    def feed(self) -> None:
        listing = self.stack.environment["EXTERNAL_API_GET_URL"]
        base, found, _ = listing.partition(_STANDIN)
        if not found:
            problem = (
                "EXTERNAL_API_GET_URL names a real API, and a demo puts nothing into that; use --only for the others"
            )
            raise SettingsError(problem, field="EXTERNAL_API_GET_URL")
        for name in ("astronaut", "coffee", "chelsea", "retina", "hubble"):
            self.stack.accepted("PUT", f"{base}/_standin/files/{name}.jpg", data=photos.jpeg(name))
        organizations = list(_ORGANIZATIONS.values())
        seeds: list[dict[str, Any]] = [
            {"files": ["astronaut.jpg", "coffee.jpg"], "images": 1, "dead_link": True, "expired_sas": True},
            {"files": ["chelsea.jpg"], "images": 2},
            {"files": ["retina.jpg", "hubble.jpg"], "images": 0},
        ]
        for number, seed in enumerate(seeds):
            organization = organizations[number % 2]
            seed |= {"organization_id": organization, "organization_name": list(_ORGANIZATIONS)[number % 2]}
            self.stack.accepted("POST", f"{base}/_standin/vision-analyses", json=seed)
        for name, organization in _ORGANIZATIONS.items():
            job = {
                "name": f"{name}: hourly vision analysis",
                "schedule": "0 * * * *",
                "external_api_get_url": listing,
                "external_api_post_url": self.stack.environment["EXTERNAL_API_POST_URL"],
                "external_api_key": self.stack.environment["EXTERNAL_API_KEY"],
                "backend_api_url": self.stack.environment["BACKEND_API_URL"],
                "organization_id": organization,
            }
            job_id = self._saved(job)
            begun = self.stack.accepted("POST", f"/cron-jobs/{job_id}/run", headers=self.stack.admin_headers()).json()
            self._begun[name] = job_id, begun["execution_id"]

    def _saved(self, job: dict[str, Any]) -> str:
        """The id of a cron job like this one: that of the last demo, with these addresses, or a new one."""
        headers = self.stack.admin_headers()
        known = self.stack.accepted("GET", "/cron-jobs", headers=headers).json()["jobs"]
        before = next((one["job_id"] for one in known if one["name"] == job["name"]), None)
        method, path = ("PATCH", f"/cron-jobs/{before}") if before else ("POST", "/cron-jobs")
        job_id: str = self.stack.accepted(method, path, json=job, headers=headers).json()["job_id"]
        return job_id

    def look(self) -> Progress:
        done, waiting, failures = 0, [], []
        self._done = []
        for name, (job_id, execution_id) in self._begun.items():
            path = f"/cron-jobs/{job_id}/executions"
            answer = self.stack.accepted("GET", path, headers=self.stack.admin_headers()).json()
            # Not the latest, which at the full hour is the schedule's.
            execution = next(one for one in answer["executions"] if one["execution_id"] == execution_id)
            done += execution["successful"]
            self._done += [one for one in execution["analyses"] if one["status"] == "success"]
            failures += [f"{a['run_code']}: {a['error']}" for a in execution["analyses"] if a["status"] == "failed"]
            if execution["status"] == "running":
                waiting.append(name)
            elif execution["status"] == "failed" and not execution["total"]:
                failures.append(f"{name}: {execution['error']}")
        return Progress(done, f"reports of {', '.join(waiting)}" if waiting else "", failures)

    def refused(self) -> list[Refusal]:
        return [
            Refusal(f"{missing} of {analysis['images_total']} images of {analysis['run_code']}", _WHY)
            for analysis in self._done
            if (missing := (analysis["images_total"] or 0) - (analysis["images_usable"] or 0))
        ]

    def exhibits(self) -> list[Exhibit]:
        shown = []
        for analysis in self._done:
            report = self.stack.accepted("GET", f"/batch-analysis/batches/{analysis['batch_id']}/report").text
            shown.append(Exhibit(f"The report on {analysis['run_code']}", document=report))
        return shown

    def links(self) -> list[str]:
        gateway = self.stack.environment["GATEWAY_URL"]
        reports = [f"{gateway}/batch-analysis/batches/{one['batch_id']}/report" for one in self._done[:1]]
        return [*reports, self.stack.dagster("/locations/imgpipe/jobs/vision_reports/runs")]


SCENARIO = VisionReportsScenario
