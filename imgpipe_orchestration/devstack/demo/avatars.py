"""Four invented people; the first is camera-shy, whom the stand-in does not draw, so that a failure can be seen."""

from collections.abc import Iterator
from typing import Any

from imgpipe_orchestration.devstack.demo.scenario import Exhibit, Result, Stack
from imgpipe_orchestration.devstack.standins.flowise_api import CAMERA_SHY

PEOPLE = 4


def avatars(stack: Stack, result: Result) -> Iterator[None]:
    """`POST /api/avatars/tasks`, then the task until everybody is pictured but the one who fails on purpose."""
    result.items = PEOPLE
    brief = "People who work in a small bakery in Porto"
    # A real OpenAI refuses nobody on request: then all four are expected to arrive.
    if stack.environment["OPENAI_BASE_URL"].startswith("http://127.0.0.1"):
        brief += f", the first of them {CAMERA_SHY}"
    asked = stack.operated("POST", "/api/avatars/tasks", {"count": PEOPLE, "brief": brief, "seed": 1})
    people: list[dict[str, Any]] = []
    while not result.settled:
        task = stack.operated("GET", f"/api/avatars/tasks/{asked['task_id']}")
        people = [person for person in task["personas"] if person["status"] == "completed"]
        failed = {p["firstname"] or "nobody": p["error"] for p in task["personas"] if p["status"] == "failed"}
        on_purpose = next((name for name, error in failed.items() if "content policy" in error), None)
        if on_purpose:
            result.refused, result.failed_on_purpose = {f"the pictures of {on_purpose}": failed.pop(on_purpose)}, 1
        result.failures = [f"{name}: {error}" for name, error in failed.items()]
        result.arrived = len(people) + result.failed_on_purpose
        result.waiting_for = f"{task['status']}, {task['progress']['percent']} %, {task['waiting_for'] or ''}"
        yield
    result.exhibits = [_exhibit(stack, person) for person in people]


def _exhibit(stack: Stack, person: dict[str, Any]) -> Exhibit:
    urls = {name: person[f"{name}_url"] for name in ("base_image", "image_1", "image_2")}
    pictures = {name: stack.accepted("GET", url).content for name, url in urls.items() if url}
    made_by = "stand-ins" if person["standin"] else ""
    facts = {"Biography": person["bio"], "Asked for": person["image_prompt"], "Made by": made_by}
    return Exhibit(f"{person['firstname']} {person['lastname']}, {person['occupation']}", pictures, facts)
