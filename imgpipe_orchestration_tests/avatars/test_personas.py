"""The data stage: answers of every quality, duplicates, and a Flowise that is away."""

import json
from http.server import BaseHTTPRequestHandler
from typing import Any

from imgpipe_orchestration.avatars.model import PersonaStatus, TaskStatus
from imgpipe_orchestration.avatars.personas import sort_out
from imgpipe_orchestration_tests.avatars.conftest import Desk
from imgpipe_orchestration_tests.avatars.flowise import flowise_answering
from imgpipe_orchestration_tests.partners.wire import reply, serving

PERSON = {
    "firstname": "Zoë",
    "lastname": "Müller",
    "gender": "female",
    "age": 34,
    "nationality": "Austria",
    "occupation": "baker",
    "bio": "Bakes.",
    "appearance": "red hair",
}


def person(first: str, **changes: Any) -> dict[str, Any]:
    return {**PERSON, "firstname": first, "bio": f"{first} bakes.", **changes}


def test_an_answer_is_sorted_into_usable_people_and_reasons() -> None:
    answer = [person("Ada"), person("ADA", bio="Another."), {"firstname": "Only"}, person("Ben"), person("Cleo")]
    people, problems = sort_out(answer, [4, 5, 6], [("Ben Müller", "x")])
    assert {position: p.firstname for position, p in people.items()} == {4: "Ada", 5: "Cleo"}
    assert problems == ["ADA Müller is a duplicate", "lastname: Field required", "Ben Müller is a duplicate"]


def test_a_story_is_one_persons_and_a_few_words_are_anybodys() -> None:
    story = "Grew up above a bakery, ran away to sea at sixteen and came home to marry the girl next door."
    told_twice = [person("Ada", bio=story), person("Ben", bio=story.upper().replace(" ", "  "))]
    assert sort_out(told_twice, [0, 1], [])[1] == ["Ben Müller is a duplicate"]
    few_words = [person("Ada", bio="Bakes bread."), person("Ben", bio="Bakes bread.")]
    assert len(sort_out(few_words, [0, 1], [("Cleo Müller", "Bakes bread.")])[0]) == 2


def test_too_few_people_are_noticed() -> None:
    assert sort_out([person("Ada")], [0, 1], [])[1] == ["personas asked for: 2, received: 1"]


def test_flowise_is_asked_with_the_agreed_words_and_answers_in_text_or_json_are_read(desk: Desk) -> None:
    answers = [
        {"text": "Sure!\n```json\n" + json.dumps([person("Ada")]) + "\n```"},
        {"json": [person("Ben")]},
        {"text": f'["kind", "old"] as in {json.dumps(person("Eve"))}:\n{json.dumps({"people": [person("Cleo")]})}'},
    ]
    with flowise_answering(*answers) as flowise:
        desk.use_flowise(flowise.url)
        task = desk.with_people(3, brief="bakers", language="German", style="plain", seed=5)
    assert {p.firstname for p in desk.people(task)} == {"Ada", "Ben", "Cleo"}
    questions = [json.loads(asked) for asked in flowise.questions]
    assert all({"count", "brief", "language", "style", "exclude"} <= set(q) for q in questions)
    assert questions[0] | {"seed": 0} == {
        "count": 3, "brief": "bakers", "language": "German", "style": "plain", "exclude": [], "seed": 0,
    }  # fmt: skip
    assert flowise.authorizations == {"Bearer a-key"}


def test_duplicates_are_replaced_and_the_second_question_names_who_is_there(desk: Desk) -> None:
    with flowise_answering({"json": [person("Ada")]}, {"json": [person("ada")]}, {"json": [person("Ben")]}) as flowise:
        desk.use_flowise(flowise.url)
        task = desk.with_people(2)
    assert {p.firstname for p in desk.people(task)} == {"Ada", "Ben"}
    last = json.loads(flowise.questions[-1])
    assert last["exclude"] == ["Ada Müller"] or last["exclude"] == ["ada Müller"]


def test_a_person_who_comes_out_wrong_again_and_again_fails_alone(desk: Desk) -> None:
    wrong = {"json": [person("Eve", age="unknown")]}
    with flowise_answering({"json": [person("Ada")]}, wrong, wrong, wrong, wrong, wrong) as flowise:
        desk.use_flowise(flowise.url)
        task = desk.ask(2)
        outcome = desk.data().outcome
    assert (outcome.done, len(outcome.failed)) == ([], 1)
    by_status = {p.status: p for p in desk.people(task)}
    assert by_status[PersonaStatus.PENDING].firstname == "Ada"
    assert "age: Input should be a valid integer" in (by_status[PersonaStatus.FAILED].error or "")
    assert "previous_problem" in json.loads(flowise.questions[-1])

    desk.images()
    done = desk.task(task)
    assert done.status is TaskStatus.COMPLETED
    assert (done.error_log or "").startswith("persona ")


def test_a_planned_question_is_asked_in_the_same_words_by_whoever_takes_over(desk: Desk) -> None:
    with flowise_answering({"text": "no people"}) as flowise:
        desk.use_flowise(flowise.url)
        task = desk.with_people(1)
        flowise.answers = [{"json": [person("Ada")]}]
        desk.data_now()
    assert [p.firstname for p in desk.people(task)] == ["Ada"]
    assert flowise.questions[-1] == flowise.questions[0]


def test_a_question_that_is_refused_costs_the_others_nothing_and_is_asked_anew(desk: Desk) -> None:
    def answer(handler: BaseHTTPRequestHandler, number: int) -> None:
        if number == 0:
            reply(handler, b'{"message": "no"}', status=400)
        else:
            reply(handler, json.dumps({"json": [person(f"Nr {number}")]}).encode())

    with serving(answer) as flowise:
        desk.use_flowise(flowise.url)
        desk.change(multithread_flowise=3)
        task = desk.with_people(3)
    assert desk.task(task).status is TaskStatus.DATA_GENERATED
    assert {p.status for p in desk.people(task)} == {PersonaStatus.PENDING}


def test_a_flowise_that_answers_nonsense_makes_the_task_wait_and_then_fail_with_the_reason(desk: Desk) -> None:
    desk.standins.fault("flowise", "not_json", count=None)
    task = desk.with_people(2)
    waiting = desk.task(task)
    assert waiting.status is TaskStatus.PENDING
    assert "Flowise answered a web page instead of JSON" in (waiting.waiting_for or "")
    for _ in range(2):
        desk.data_now()
    failed = desk.task(task)
    assert failed.status is TaskStatus.FAILED
    assert (failed.error_log or "").count("Flowise answered a web page instead of JSON") == 2

    desk.standins.admin("DELETE", "faults")
    assert desk.retry_failed(failed) == 2
    desk.data()
    desk.images()
    assert desk.task(task).status is TaskStatus.COMPLETED
