"""Four invented people; the first is camera-shy, whom the stand-in draws not, so that a failure can be seen."""

from __future__ import annotations

from typing import Any

from imgpipe_orchestration.devstack.demo.scenario import Exhibit, Refusal, Scenario, Stack, picture
from imgpipe_orchestration.devstack.standins.flowise_api import CAMERA_SHY

PEOPLE = 4


class AvatarsScenario(Scenario):
    """`POST /api/avatars/tasks`, then the task until everybody is pictured but the one who fails on purpose."""

    pipeline = "avatars"
    items = PEOPLE
    seconds = 240

    def __init__(self, stack: Stack) -> None:
        super().__init__(stack)
        self._url = ""
        self._people: list[dict[str, Any]] = []

    def feed(self) -> None:
        brief = "People who work in a small bakery in Porto"
        # A real OpenAI refuses nobody on request: then all four are expected to arrive.
        if self.stack.environment["OPENAI_BASE_URL"].startswith("http://127.0.0.1"):
            brief += f", the first of them {CAMERA_SHY}"
        wanted = {"count": PEOPLE, "brief": brief, "seed": 1}
        headers = self.stack.admin_headers()
        answer = self.stack.accepted("POST", "/api/avatars/tasks", json=wanted, headers=headers)
        self._url = f"/api/avatars/tasks/{answer.json()['task_id']}"

    def look(self) -> None:
        task = self.stack.asked(self._url)
        self._people = [person for person in task["personas"] if person["status"] == "completed"]
        failed = [person for person in task["personas"] if person["status"] == "failed"]
        on_purpose = [p for p in failed if "content policy" in p["error"]][:1]
        self.result.refused = [
            Refusal(f"the pictures of {p['firstname']}", p["error"], failed=True) for p in on_purpose
        ]
        self.result.failures = [f"{p['firstname'] or 'nobody'}: {p['error']}" for p in failed if p not in on_purpose]
        self.result.arrived = len(self._people) + len(on_purpose)
        why = f", {task['waiting_for']}" if task["waiting_for"] else ""
        self.result.waiting_for = f"{task['status']}, {task['progress']['percent']} %{why}"

    def show(self) -> None:
        pictured = [person["image_1_url"] for person in self._people[:1]]
        runs = self.stack.dagster("/locations/imgpipe/jobs/avatar_images/runs")
        self.result.links = [*pictured, self.stack.gateway(self._url), runs]
        self.result.exhibits = [self._exhibit(person) for person in self._people]

    def _exhibit(self, person: dict[str, Any]) -> Exhibit:
        urls = [person["base_image_url"], person["image_1_url"], person["image_2_url"]]
        pictures = [picture(self.stack.accepted("GET", url).content, "PNG") for url in urls if url]
        facts = {"Biography": person["bio"], "Asked for": person["image_prompt"], "Cost": f"${person['cost_usd']}"}
        facts["Made by"] = "stand-ins" if person["standin"] else ""
        return Exhibit(f"{person['firstname']} {person['lastname']}, {person['occupation']}", pictures, facts)


SCENARIO = AvatarsScenario
