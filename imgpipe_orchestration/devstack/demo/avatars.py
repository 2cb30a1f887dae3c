"""Four invented people; the first is camera-shy, whom the stand-in draws not, so that a failure can be seen."""

from typing import Any

from imgpipe_orchestration.devstack.demo.scenario import Exhibit, Scenario, Stack
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
        task = self.stack.operated("POST", "/api/avatars/tasks", {"count": PEOPLE, "brief": brief, "seed": 1})
        self._url = f"/api/avatars/tasks/{task['task_id']}"

    def look(self) -> None:
        task, result = self.stack.operated("GET", self._url), self.result
        self._people = [person for person in task["personas"] if person["status"] == "completed"]
        failed = {p["firstname"] or "nobody": p["error"] for p in task["personas"] if p["status"] == "failed"}
        on_purpose = next((name for name, error in failed.items() if "content policy" in error), None)
        if on_purpose:
            result.refused, result.failed_on_purpose = {f"the pictures of {on_purpose}": failed.pop(on_purpose)}, 1
        result.failures = [f"{name}: {error}" for name, error in failed.items()]
        result.arrived = len(self._people) + result.failed_on_purpose
        result.waiting_for = f"{task['status']}, {task['progress']['percent']} %, {task['waiting_for'] or ''}"

    def show(self) -> list[Exhibit]:
        return [self._exhibit(person) for person in self._people]

    def _exhibit(self, person: dict[str, Any]) -> Exhibit:
        urls = {name: person[f"{name}_url"] for name in ("base_image", "image_1", "image_2")}
        pictures = {name: self.stack.accepted("GET", url).content for name, url in urls.items() if url}
        facts = {"Biography": person["bio"], "Asked for": person["image_prompt"], "Cost": f"${person['cost_usd']}"}
        facts["Made by"] = "stand-ins" if person["standin"] else ""
        return Exhibit(f"{person['firstname']} {person['lastname']}, {person['occupation']}", pictures, facts)
