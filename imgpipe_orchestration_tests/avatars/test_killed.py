"""Workers that are killed, cancelled under, or not alone: nothing is lost, nothing is paid twice."""

import os
import signal
import subprocess
import sys
import threading
from unittest.mock import Mock

import pytest

from imgpipe_orchestration.avatars import store
from imgpipe_orchestration.avatars.drawing import buyer_of
from imgpipe_orchestration.avatars.lifecycle import PERSONAS, TASKS
from imgpipe_orchestration.avatars.model import PersonaStatus, Step, TaskStatus
from imgpipe_orchestration.errors import BackendUnavailable, Conflict
from imgpipe_orchestration.lifecycle.kind import Kind
from imgpipe_orchestration.lifecycle.trash import delete
from imgpipe_orchestration.operations import deletion, sweep
from imgpipe_orchestration.storage.objects import Bucket
from imgpipe_orchestration_tests.avatars.conftest import Desk
from imgpipe_orchestration_tests.devstack.running import wait_for

_WORKER = """
import logging, os, signal, sys
from imgpipe_orchestration.avatars import runs
from imgpipe_orchestration.wiring.services import Services
from imgpipe_orchestration.settings import load

class Printed(logging.StreamHandler):
    def emit(self, record):
        super().emit(record)
        if sys.argv[2] and sys.argv[2] in record.getMessage():
            os.kill(os.getpid(), signal.SIGSTOP)

logging.basicConfig(level="INFO", handlers=[Printed(sys.stdout)], format="%(message)s")
runs.run_images(Services(load()), sys.argv[1])
"""


class Worker:
    """An image run in a process of its own, whose log lines can be waited for. It stops itself at some words."""

    def __init__(self, desk: Desk, owner: str, stops_at: str = "") -> None:
        environment = {**os.environ, **desk.services.settings.environment()}
        self.process = subprocess.Popen(
            [sys.executable, "-u", "-c", _WORKER, owner, stops_at],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self.said: list[str] = []

    def until(self, words: str) -> bool:
        """Read on until a line has these words; False when the process ended first."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.said.append(line.rstrip())
            if words in line:
                return True
        return False

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.communicate()


def _bring_back(desk: Desk) -> None:
    """Wait until the killed worker's lease has run out."""
    wait_for(lambda: desk.services.claims.due_partitions(store.IMAGES), "the lease of the killed worker to end", 60)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_worker_killed_at_each_of_the_seven_steps_costs_only_the_step_it_was_at(desk: Desk) -> None:
    desk.standins.admin("POST", "delays", {"openai": 5, "flowise": 5})
    task = desk.with_people(1)
    for step in Step:
        words = f"Step {step.value}/7"
        calls = step in (Step.PROMPT, Step.BASE, Step.GRID)  # whose delay is long enough to be killed in the call
        worker = Worker(desk, f"killed-{step.value}", "" if calls else words)
        assert worker.until(words)
        worker.kill()
        begun = [line for line in worker.said if "Step " in line]
        first = begun[0].partition("Step ")[2][0]
        # The step before was committed or not when the signal came; what was committed earlier is not done again.
        assert int(first) in (step.value, step.value - 1)
        _bring_back(desk)
    worker = Worker(desk, "the last one")
    assert worker.until("completed successfully")
    worker.process.communicate()
    assert desk.task(task).status is TaskStatus.COMPLETED
    # A call that was in flight when its worker died is the only one that may be sent again.
    for operation in ("images", "edits"):
        assert len(desk.standins.calls("openai", operation)) <= 2


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_a_run_that_is_stopped_keeps_what_is_being_drawn_and_buys_nothing_more(desk: Desk) -> None:
    task = desk.with_people(2)
    desk.standins.admin("POST", "delays", {"openai": 10})
    worker = Worker(desk, "stopped")
    assert worker.until("Step 2/7")
    wait_for(lambda: desk.standins.admin("GET", "calls")["most_in_flight"].get("openai") == 2, "both selfies", 60)
    worker.process.send_signal(signal.SIGINT)
    worker.process.communicate(timeout=90)
    desk.standins.admin("POST", "delays", {"openai": 0})
    assert (desk.calls("openai", "images"), desk.calls("openai", "edits")) == (2, 0)
    assert {person.step for person in desk.people(task)} == {Step.BASE_UPLOAD}
    _bring_back(desk)
    desk.eventually(desk.images_now, lambda: desk.task(task).status is TaskStatus.COMPLETED)
    assert (desk.calls("openai", "images"), desk.calls("openai", "edits")) == (2, 2)


@pytest.mark.timeout(400)
def test_a_picture_that_takes_long_keeps_no_other_task_waiting(desk: Desk) -> None:
    desk.standins.fault("openai", "slow", operation="edits", seconds=100)
    slow = desk.with_people(1)
    run = threading.Thread(target=desk.images)
    run.start()
    wait_for(lambda: desk.people(slow)[0].step == Step.BASE_UPLOAD, "the slow picture", 60)
    other = desk.with_people(1)
    wait_for(lambda: desk.task(other).manifest_url is not None, "the other task and its manifest", 60)
    assert (run.is_alive(), desk.task(slow).status) == (True, TaskStatus.GENERATING_IMAGES)
    desk.standins.admin("DELETE", "faults")
    run.join()
    assert desk.task(slow).status is TaskStatus.COMPLETED


@pytest.mark.timeout(400)
def test_a_task_whose_pictures_are_all_slow_leaves_a_place_to_a_task_that_comes_later(desk: Desk) -> None:
    slow = desk.with_people(8)
    for person in desk.people(slow):
        desk.standins.fault("openai", "slow", operation="images", seconds=100, match=person.name, count=None)
    run = threading.Thread(target=desk.images)
    run.start()
    try:
        wait_for(lambda: desk.standins.admin("GET", "calls")["most_in_flight"].get("openai") == 4, "its share", 60)
        good = desk.with_people(1)
        wait_for(lambda: desk.task(good).status is TaskStatus.COMPLETED, "the other task", 60)
        assert {p.step for p in desk.people(slow)} == {Step.PROMPT}
        assert run.is_alive()
    finally:
        desk.cancel(slow)
        desk.standins.admin("DELETE", "faults")
        run.join(120)


def test_a_task_cancelled_in_the_middle_stays_cancelled_and_buys_nothing_more(desk: Desk) -> None:
    desk.standins.fault("openai", "slow", operation="images", seconds=100, count=None)
    task = desk.with_people(8)
    run = threading.Thread(target=desk.images)
    run.start()
    wait_for(
        lambda: desk.standins.admin("GET", "calls")["most_in_flight"].get("openai") == 4, "its share of the lane", 60
    )
    desk.cancel(task)
    desk.standins.admin("DELETE", "faults")
    run.join()
    assert len(desk.standins.calls("openai")) == 4, "what was being drawn, and nobody who waited"
    assert desk.task(task).status is TaskStatus.CANCELLED
    assert {p.status for p in desk.people(task)} <= {PersonaStatus.CANCELLED, PersonaStatus.COMPLETED}
    (paid,) = desk.sql("select sum(cost_usd) from paid_call_uses where outcome = 'bought'")
    assert desk.cost(task) == paid.sum > 0, "what was being drawn is paid for"
    assert not desk.images_now().outcome.done
    with pytest.raises(Conflict):
        desk.cancel(desk.task(task))


@pytest.mark.parametrize("kind", [TASKS, PERSONAS], ids=lambda kind: kind.name)
def test_a_picture_that_is_drawn_when_its_person_is_purged_is_dropped(desk: Desk, kind: Kind) -> None:
    desk.standins.admin("POST", "delays", {"openai": 3})
    task = desk.with_people()
    (person,) = desk.people(task)
    run = threading.Thread(target=desk.images)
    run.start()
    wait_for(lambda: desk.standins.admin("GET", "calls")["most_in_flight"].get("openai"), "the picture's call", 30)
    what, item = (f"task_{task.id}", task.id) if kind is TASKS else (buyer_of(person).item, person.id)
    delete(desk.services, kind, what, [item], user=None, who="a test", purge=True)
    assert deletion.run(desk.services, "purge-1")["purged"] == 1
    run.join()
    assert desk.calls("openai", "images") == 1
    assert not any((desk.services.settings.imgpipe_data_dir / "avatars-bought").iterdir())
    assert sweep.of_everything(desk.services).clean


@pytest.mark.parametrize("asked_for", [True, False], ids=["asked for", "a week after it was cancelled"])
def test_a_picture_that_a_killed_worker_left_on_its_machine_goes_with_its_person(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, asked_for: bool
) -> None:
    task = desk.with_people()
    monkeypatch.setattr(Bucket, "put", Mock(side_effect=BackendUnavailable("The object store cannot be reached.")))
    desk.images()
    (left,) = (desk.services.settings.imgpipe_data_dir / "avatars-bought").iterdir()
    if asked_for:
        delete(desk.services, TASKS, f"task_{task.id}", [task.id], user=None, who="a test", purge=True)
    else:
        desk.cancel(task)
        desk.sql("update generation_tasks set finished_at = now() - interval '8 days'")
    assert (deletion.run(desk.services, "purge-1")["purged"], left.exists()) == (1, False)
    left.write_bytes(b"on a machine that does not purge")
    assert sweep.of_everything(desk.services).keys == [left.name]
    desk.images()
    assert sweep.of_everything(desk.services).clean


def test_a_cancelled_task_that_an_operator_requeues_by_name_stays_cancelled(desk: Desk) -> None:
    early, late = desk.ask(1), desk.ask(1)
    desk.cancel(early)
    desk.data()
    desk.cancel(late)
    assert desk.services.claims.requeue(store.DATA, [early.id]) == []
    people = [person.id for person in desk.people(late)]
    assert people and desk.services.claims.requeue(store.IMAGES, people) == []
    desk.data()
    desk.images()
    assert {desk.task(task).status for task in (early, late)} == {TaskStatus.CANCELLED}
    assert desk.people(early) == []
    assert desk.standins.calls("openai") == []
