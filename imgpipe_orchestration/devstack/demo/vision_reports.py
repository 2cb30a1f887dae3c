"""Two organizations ask for reports on real photographs; one has a dead link and an expired one among them."""

from typing import Any

from imgpipe_orchestration.devstack.demo.scenario import Exhibit, Scenario, Stack
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


class VisionReportsScenario(Scenario):
    """A cron job an organization over REST, each run at once; done when the external API has every report."""

    pipeline = "vision_reports"
    items = len(_ANALYSES)

    def __init__(self, stack: Stack) -> None:
        super().__init__(stack)
        self._begun: dict[str, tuple[str, str]] = {}
        self._done: list[dict[str, Any]] = []

    def feed(self) -> None:
        addresses = ("EXTERNAL_API_GET_URL", "EXTERNAL_API_POST_URL", "EXTERNAL_API_KEY", "BACKEND_API_URL")
        base, found, _ = self.stack.environment["EXTERNAL_API_GET_URL"].partition("/vision-analysis/")
        if not found:
            problem = "EXTERNAL_API_GET_URL names a real API, and a demo puts nothing into that; use --only for others"
            raise SettingsError(problem, field="EXTERNAL_API_GET_URL")
        for name, seed in _ANALYSES:
            asks = {**seed, "organization_id": _ORGANIZATIONS[name], "organization_name": name}
            self.stack.accepted("POST", f"{base}/_standin/vision-analyses", json=asks)
        for name, organization in _ORGANIZATIONS.items():
            job = {
                "name": f"{name}: hourly vision analysis",
                "schedule": "0 * * * *",
                "organization_id": organization,
                **{setting.lower(): self.stack.environment[setting] for setting in addresses},
            }
            path = f"/cron-jobs/{self._saved(job)}"
            self._begun[name] = path, self.stack.operated("POST", f"{path}/run")["execution_id"]

    def _saved(self, job: dict[str, Any]) -> str:
        """The id of a cron job like this one: that of the last demo, with these addresses, or a new one."""
        known = self.stack.operated("GET", "/cron-jobs")["jobs"]
        before = next((one["job_id"] for one in known if one["name"] == job["name"]), None)
        method, path = ("PATCH", f"/cron-jobs/{before}") if before else ("POST", "/cron-jobs")
        return str(self.stack.operated(method, path, job)["job_id"])

    def look(self) -> None:
        result, waiting, analyses = self.result, [], []
        result.failures = []
        for name, (path, execution_id) in self._begun.items():
            # Not the latest, which at the full hour is the schedule's.
            found = self.stack.operated("GET", f"{path}/executions")["executions"]
            execution = next(one for one in found if one["execution_id"] == execution_id)
            analyses += execution["analyses"]
            if execution["status"] == "running":
                waiting.append(name)
            elif execution["status"] == "failed" and not execution["total"]:
                result.failures.append(f"{name}: {execution['error']}")
        self._done = [one for one in analyses if one["status"] == "success"]
        result.failures += [f"{one['run_code']}: {one['error']}" for one in analyses if one["status"] == "failed"]
        result.arrived, result.waiting_for = len(self._done), f"reports of {', '.join(waiting)}"
        lost = {one["run_code"]: (one["images_total"] or 0) - (one["images_usable"] or 0) for one in self._done}
        why = "a dead link or an expired one; the report says so of each"
        result.refused = {f"{images} images of {code}": why for code, images in lost.items() if images}

    def show(self) -> list[Exhibit]:
        return [
            Exhibit(
                f"The report on {one['run_code']}",
                document=self.stack.accepted("GET", f"/batch-analysis/batches/{one['batch_id']}/report").text,
            )
            for one in self._done
        ]
