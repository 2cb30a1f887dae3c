"""Avatars through the running stack: request, sensors, two jobs, pictures in S3, exports; what goes wrong midway."""

import csv
import io
import json
import os
import signal
import zipfile
from collections.abc import Iterator
from typing import Any

import pytest
from PIL import Image

from imgpipe_orchestration_tests.devstack.running import clean_environment, imgpipe, wait_for
from imgpipe_orchestration_tests.end_to_end.conftest import Stack


class Request:
    """A task asked for over HTTP, and what its client can see of it."""

    def __init__(self, stack: Stack, count: int) -> None:
        self.stack = stack
        body = {"count": count, "brief": "bakers of Porto", "language": "English", "style": "plain", "seed": 7}
        answer = stack.session.post(f"{stack.gateway}/api/avatars/tasks", json=body, timeout=30)
        assert answer.status_code == 202, answer.text
        self.task_id = answer.json()["task_id"]
        self.url = f"{stack.gateway}/api/avatars/tasks/{self.task_id}"

    def seen(self) -> dict[str, Any]:
        task: dict[str, Any] = self.stack.session.get(self.url, timeout=30).json()
        return task

    def post(self, what: str) -> None:
        answer = self.stack.session.post(f"{self.url}/{what}", timeout=30)
        assert answer.status_code == 200, answer.text

    def until(self, *statuses: str) -> dict[str, Any]:
        def look() -> dict[str, Any] | None:
            task = self.seen()
            return task if task["status"] in statuses else None

        found: dict[str, Any] = wait_for(look, f"the task to be {' or '.join(statuses)}")
        return found

    def export(self, kind: str) -> bytes:
        answer = self.stack.session.get(f"{self.url}/export", params={"format": kind}, timeout=60)
        assert answer.status_code == 200, answer.text
        return answer.content

    def step(self) -> int:
        """The last step that the first person has committed; 0 before, 7 at the end."""
        rows = self.stack.rows(
            "select r.step from generation_results r join generation_tasks t on t.id = r.task_id where t.task_id = %s"
            " order by r.position limit 1",
            self.task_id,
        )
        return int(rows[0][0]) if rows else 0


class Partners:
    """The stack's stand-ins."""

    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        self.url = stack.environment["OPENAI_BASE_URL"].removesuffix("/openai/v1") + "/_standin"

    def tell(self, method: str, path: str, body: Any = None) -> Any:
        answer = self.stack.session.request(method, f"{self.url}/{path}", json=body, timeout=30)
        answer.raise_for_status()
        return answer.json() if answer.content else None

    def fault(self, provider: str, kind: str, **options: Any) -> None:
        self.tell("POST", "faults", {"provider": provider, "kind": kind, **options})

    def paid(self, operation: str) -> int:
        """Pictures that OpenAI has sent."""
        calls = self.tell("GET", f"calls?provider=openai&operation={operation}")["calls"]
        return sum(call["status"] == 200 for call in calls)


@pytest.fixture
def partners(stack: Stack) -> Iterator[Partners]:
    partners = Partners(stack)
    partners.tell("DELETE", "calls")
    yield partners
    partners.tell("DELETE", "faults")
    partners.tell("POST", "delays", {"openai": 0, "flowise": 0})


@pytest.mark.slow
def test_a_request_becomes_people_pictures_and_exports_and_one_who_was_refused_is_named_and_tried_again(
    stack: Stack, partners: Partners
) -> None:
    partners.fault("openai", "content_policy", operation="images")
    partners.fault("openai", "rate_limit", operation="edits", retry_after=0.3)
    request = Request(stack, 3)
    task = request.until("completed", "failed")
    (refused,) = [p for p in task["personas"] if p["status"] == "failed"]
    name = f"{refused['firstname']} {refused['lastname']}"
    assert task["error_log"] == f"{name} (result_id={refused['result_id']}): OpenAI refused for its content policy"
    assert (task["progress"]["completed"], task["progress"]["failed"]) == (2, 1)
    assert float(task["cost_usd"]) > 0

    request.post("retry-failed")
    task = request.until("completed")
    assert (task["error_log"], task["progress"]["completed"]) == (None, 3)
    assert (partners.paid("images"), partners.paid("edits")) == (3, 3)

    ((number,),) = stack.rows("select id from generation_tasks where task_id = %s", request.task_id)
    base = f"{stack.environment['S3_PUBLIC_ENDPOINT']}/avatar-images/avatars/task_{number}"
    for person in task["personas"]:
        names = ["base", "image_0", "image_1", "image_2", "image_3"]
        urls = [person["base_image_url"], *(person[f"image_{n}_url"] for n in range(1, 5))]
        assert urls == [f"{base}/persona_{person['result_id']}/{name}.png" for name in names]
        for url in urls:
            answer = stack.session.get(url, timeout=30)
            assert (answer.status_code, answer.headers["Content-Type"]) == (200, "image/png")
            with Image.open(io.BytesIO(answer.content)) as image:
                assert image.width == image.height >= 256

    rows = list(csv.DictReader(io.StringIO(request.export("csv").decode("utf-8-sig"))))
    lines = [json.loads(line) for line in request.export("jsonl").splitlines()]
    assert [row["base_image_url"] for row in rows] == [line["base_image_url"] for line in lines]
    assert {row["status"] for row in rows} == {"completed"}
    with zipfile.ZipFile(io.BytesIO(request.export("zip"))) as archive:
        assert archive.testzip() is None
        assert sum(name.endswith(".png") for name in archive.namelist()) == 15

    for job in ("avatar_data", "avatar_images"):
        # A run still tidies up when the last picture's row is written.
        wait_for(lambda job=job: stack.runs(job)[0]["status"] == "SUCCESS", f"the run of {job} to end well")
    assert "imgpipe_provider_cost_usd" in stack.session.get(f"{stack.gateway}/metrics", timeout=30).text


@pytest.mark.slow
def test_doctor_names_the_pool_and_the_schedule_that_somebody_switched_off(stack: Stack) -> None:
    limit = 'mutation Limit($to: Int!) { setConcurrencyLimit(concurrencyKey: "flowise", limit: $to) }'
    of = {"repositoryName": "__repository__", "repositoryLocationName": "imgpipe", "scheduleName": "retention_schedule"}
    find = "query Find($of: ScheduleSelector!) { scheduleOrError(scheduleSelector: $of) { ... on Schedule { id } } }"
    stop = "mutation Stop($id: String!) { stopRunningSchedule(id: $id) { __typename } }"
    start = "mutation Start($of: ScheduleSelector!) { startSchedule(scheduleSelector: $of) { __typename } }"
    stack.graphql(limit, to=0)
    stack.graphql(stop, id=stack.graphql(find, of=of)["scheduleOrError"]["id"])
    try:
        told = imgpipe("doctor", environ={**clean_environment(), **stack.environment}).stdout
    finally:
        stack.graphql(limit, to=4)
        stack.graphql(start, of=of)
    assert "note Dagster UI: switched off in it: pool flowise, retention_schedule" in told, told


@pytest.mark.slow
def test_runs_killed_while_they_draw_cut_and_upload_cost_at_most_the_call_that_was_in_flight(
    stack: Stack, partners: Partners
) -> None:
    partners.tell("POST", "delays", {"openai": 1, "flowise": 0.5})
    request = Request(stack, 1)
    killed = set()
    for step in (1, 4, 5):
        wait_for(lambda step=step: request.step() >= step, f"step {step} to be committed")
        (run,) = [r for r in stack.runs("avatar_images") if r["status"] == "STARTED"] or [None]
        if run is None:
            continue  # the steps after the last picture take a moment only: it was faster
        process = next(json.loads(tag["value"]) for tag in run["tags"] if tag["key"] == "dagster/forked_process")
        try:
            os.kill(process["pid"], signal.SIGKILL)
        except ProcessLookupError:
            continue

        def end(run: Any = run) -> str:
            status = next(r for r in stack.runs("avatar_images") if r["runId"] == run["runId"])["status"]
            return status if status in {"FAILURE", "SUCCESS"} else ""

        if wait_for(end, "the killed run to be seen") == "FAILURE":  # else it had said so just before
            killed.add(run["runId"])
    assert killed
    task = request.until("completed", "failed")
    assert task["status"] == "completed", task["error_log"]
    # The selfie was being drawn when the first run died: OpenAI may have drawn it twice. Nothing else may be.
    assert partners.paid("images") <= 2
    assert partners.paid("edits") == 1
