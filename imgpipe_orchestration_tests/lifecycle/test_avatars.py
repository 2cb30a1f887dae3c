"""Deleting requests for people, and single people: for good, also while they are at work."""

from imgpipe_orchestration.avatars import store
from imgpipe_orchestration.operations import sweep
from imgpipe_orchestration.storage.claims import Item
from imgpipe_orchestration.storage.rows import transaction
from imgpipe_orchestration_tests.lifecycle.conftest import call, purge
from imgpipe_orchestration_tests.lifecycle.test_retention import task_with_a_person
from imgpipe_orchestration_tests.media.conftest import Gateway
from imgpipe_orchestration_tests.operations.test_garbage import keys


def test_a_task_at_work_is_cancelled_and_all_of_it_is_removed(gateway: Gateway) -> None:
    bucket = gateway.services.avatars_bucket
    task, other = (task_with_a_person(gateway, status, None) for status in ("generating-images", "completed"))
    (person,) = gateway.rows("select id from generation_results where task_id = :id", id=task)
    with transaction(gateway.services.engine) as connection:
        gateway.services.claims.enqueue(connection, store.IMAGES, [Item(person.id)])
    (claim,) = gateway.services.claims.claim(store.IMAGES, "run-1", 1)
    (row,) = gateway.rows("select task_id from generation_tasks where id = :id", id=task)
    path = f"/api/avatars/tasks/{row.task_id}"
    answer = call(gateway, "DELETE", path)
    assert (answer.status_code, answer.json()["id"]) == (202, row.task_id)
    assert call(gateway, "DELETE", path).json() == answer.json()
    assert [call(gateway, "GET", at).status_code for at in (path, f"{path}/export")] == [410, 410]
    statuses = gateway.rows("select status from generation_tasks where id = :id", id=task)
    assert [one.status for one in statuses] == ["cancelled"]
    assert not gateway.services.claims.owned(store.IMAGES, claim.owner)
    assert gateway.rows("select who from deletions")[0].who == "ADMIN_API_KEY"
    assert purge(gateway)["purged"] == 1
    assert {key.split("/")[1] for key in keys(bucket)} == {f"task_{other}"}
    assert call(gateway, "GET", path).status_code == 404
    assert sweep.of_everything(gateway.services).clean


def test_the_answer_kept_under_an_idempotency_key_goes_with_its_task(gateway: Gateway) -> None:
    def ask() -> str:
        headers = {"Idempotency-Key": "once", "Authorization": f"Bearer {gateway.settings.admin_api_key}"}
        url, wanted = f"{gateway.url}/api/avatars/tasks", {"brief": "Bakers of Basel", "count": 1}
        return str(gateway.session.post(url, json=wanted, headers=headers, timeout=30).json()["task_id"])

    task = ask()
    assert ask() == task
    call(gateway, "DELETE", f"/api/avatars/tasks/{task}")
    purge(gateway)
    assert not gateway.rows("select from kept_answers")
    assert ask() != task


def test_a_person_goes_and_the_others_stay(gateway: Gateway) -> None:
    task, other = (task_with_a_person(gateway, "completed", 1) for _ in "ab")
    people = {row.task_id: row.id for row in gateway.rows("select task_id, id from generation_results")}
    assert call(gateway, "DELETE", "/api/avatars/personas/999999").status_code == 404
    assert call(gateway, "DELETE", f"/api/avatars/personas/{people[task]}").status_code == 202
    assert purge(gateway)["purged"] == 1
    assert {key.split("/")[1] for key in keys(gateway.services.avatars_bucket)} == {f"task_{other}"}
    assert [row.id for row in gateway.rows("select id from generation_results")] == [people[other]]
    assert len(gateway.rows("select from generation_tasks")) == 2
    assert sweep.of_everything(gateway.services).clean
