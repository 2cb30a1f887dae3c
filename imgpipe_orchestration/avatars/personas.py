"""The data stage: Flowise invents people in parallel batches, all different.

Each round plans questions for the missing people, commits them and asks. The next round asks for whoever is still
missing (invalid, duplicate or unreadable answers) and lists everybody to leave out. Because questions are committed, a
worker that takes over asks the same ones, whose answers the ledger may have.
"""

import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated, Any

import pydantic
from pydantic import create_model

from imgpipe_orchestration.avatars import records, store
from imgpipe_orchestration.avatars.lanes import Lanes, turn
from imgpipe_orchestration.avatars.model import ENDED, PersonaData, name_key
from imgpipe_orchestration.avatars.records import Question, Task
from imgpipe_orchestration.billing.calls import Answer, Buyer, PaidCall, Purchase, first_answer
from imgpipe_orchestration.errors import (
    ImgpipeError,
    PartnerAway,
    PartnerRefused,
    PartnerStumbled,
    PartnerUnavailable,
    RateLimited,
    TooLarge,
)
from imgpipe_orchestration.partners.models import Choice
from imgpipe_orchestration.partners.openai import Query
from imgpipe_orchestration.partners.usage import Priced
from imgpipe_orchestration.storage.claims import Claim
from imgpipe_orchestration.storage.rows import transaction
from imgpipe_orchestration.telemetry import tracing
from imgpipe_orchestration.telemetry.logs import logger
from imgpipe_orchestration.wiring.services import Services

log = logger(__name__)

MOST_ASKED = 10
"""Most people in one question; longer answers are often cut off."""
MOST_LISTED = 10 * MOST_ASKED
"""Entries of an answer that are looked at."""
MOST_ROUNDS = 8
IDLE_ROUNDS = 2
"""After so many rounds in a row without anybody new the missing people fail."""
STORY = 80
"""Bios of at least so many characters must differ; a short one such as "Bakes bread." may be true of many people."""


def _listed(answer: Any) -> Any:
    """The list in an answer, which may also be an object that contains the list (structured output), or one person."""
    if isinstance(answer, dict):
        lists = [value for value in answer.values() if isinstance(value, list)]
        answer = lists[0] if len(lists) == 1 and "firstname" not in answer else [answer]
    return answer[:MOST_LISTED] if isinstance(answer, list) else answer


_Entries = Annotated[list[Any], pydantic.BeforeValidator(_listed)]
"""The entries of a flow's answer, validated one by one later, so that an invalid one does not spoil the others."""


def invent(services: Services, claim: Claim, lanes: Lanes) -> None:
    """Invent all people of a task; those who are missing at the end fail, the others go on.

    Raises:
        SpendingPaused: the flow is unknown, or our credential is not accepted.
        Retryable: a whole round failed; the people of earlier rounds are kept.
        PartnerRefused: some are missing in the end.
    """
    with transaction(services.engine) as connection:
        store.begin(connection, store.DATA, claim.item_id)
        task = records.get(connection, claim.item_id)
    if task.status in ENDED:
        # Somebody requeued the item of a task that was cancelled, or whose people are deleted: there is nothing to do.
        with services.claims.fenced(claim) as connection:
            services.claims.finish(connection, store.DATA, claim)
        return
    log.info(f"[Task {task.task_id}] Generating data for {task.persona_count} personas")
    idle = 0
    for _ in range(MOST_ROUNDS):
        questions = _planned(services, claim, task) if idle < IDLE_ROUNDS else []
        if not questions:
            break
        idle = 0 if _ask_all(services, claim, task, questions, lanes) else idle + 1
    with services.claims.fenced(claim) as connection:
        missing = len(records.missing_positions(connection, task.id))
        if not missing:
            store.close_data(connection, task.id, "")
            services.claims.finish(connection, store.DATA, claim)
        reason = records.last_problem(connection, task.id)
    log.info(f"[Task {task.task_id}] Generated data of {task.persona_count - missing} personas")
    if missing:
        raise PartnerRefused(f"{missing} of {task.persona_count} personas are missing: {reason}")


def _planned(services: Services, claim: Claim, task: Task) -> list[Question]:
    """The questions of the current round: unanswered ones of a worker that stopped, else new ones."""
    with services.claims.fenced(claim) as connection:
        if left := records.open_questions(connection, task.id):
            return left
        missing = records.missing_positions(connection, task.id)
        if not missing:
            return []
        round_, first = records.planned(connection, task.id)
        known = records.known_people(connection, task.id)
        problem = records.last_problem(connection, task.id) if round_ else ""
        threads = services.settings.multithread_flowise
        # After two rounds each missing person is asked for alone, so that an invalid one spoils no other's answer.
        size = 1 if round_ > 1 else min(MOST_ASKED, -(-len(missing) // threads))
        groups = [missing[i : i + size] for i in range(0, len(missing), size)]
        questions = [
            Question(first + n, round_, tuple(group), _asked(task, first + n, len(group), known, problem))
            for n, group in enumerate(groups)
        ]
        records.plan(connection, task.id, questions)
        return questions


def _asked(task: Task, number: int, count: int, known: Sequence[tuple[str, str]], problem: str) -> dict[str, Any]:
    """The question for Flowise. Each has its own seed, because with the same seed it returns the same people."""
    asked = {
        "count": count,
        "brief": task.brief,
        "language": task.language,
        "style": task.style,
        "exclude": [name for name, _ in known],
        "seed": task.seed + number,
    }
    return asked | ({"previous_problem": problem} if problem else {})


def _ask_all(services: Services, claim: Claim, task: Task, questions: Sequence[Question], lanes: Lanes) -> int:
    """Ask a round's questions in parallel; returns how many new people it brought.

    Raises:
        PartnerAway: Flowise went away; unanswered questions are asked again once it is back.
        ImgpipeError: the first question's error, if none was answered and Flowise answered nobody of this task so far
            either; or an error that stops all, e.g. LeaseLost.
    """

    def ask(question: Question) -> int | ImgpipeError:
        try:
            with turn(lanes, lanes.flowise, services, claim):
                answer = _buy(services, task, question)
            return _keep(services, claim, task, question, answer)
        except (PartnerUnavailable, PartnerRefused, RateLimited, TooLarge) as error:
            return error

    with ThreadPoolExecutor(services.settings.multithread_flowise, thread_name_prefix="personas") as pool:
        outcomes = list(pool.map(tracing.carried(ask), questions))
    errors = [(q, o) for q, o in zip(questions, outcomes, strict=True) if isinstance(o, ImgpipeError)]
    if away := next((error for _, error in errors if isinstance(error, PartnerAway)), None):
        raise away
    if len(errors) == len(questions) and not _are_at_fault(services, task, errors):
        raise errors[0][1]
    for question, error in errors:
        # The fault is this question's: it counts as answered with nobody, and the next round asks for its people.
        with services.claims.fenced(claim) as connection:
            records.answered(connection, task.id, question, {}, error.public)
    return sum(outcome for outcome in outcomes if isinstance(outcome, int))


def _are_at_fault(services: Services, task: Task, errors: Sequence[tuple[Question, ImgpipeError]]) -> bool:
    """Whether it is the questions, none of which was answered, and not Flowise: it answered others of this task."""
    if not all(isinstance(error, PartnerStumbled) for _, error in errors):
        return False
    with transaction(services.engine) as connection:
        return len(records.missing_positions(connection, task.id)) < task.persona_count


def _buy(services: Services, task: Task, question: Question) -> Answer:
    # With sorted keys: jsonb does not keep the order, and the text is part of the call's key in the ledger.
    asked = json.dumps(question.asked, ensure_ascii=False, sort_keys=True)
    buyer = Buyer("avatars", f"task_{task.id}", f"task_{task.id}")
    prompt = services.prompts["persona"]

    def ask(choice: Choice) -> Answer:
        parameters: dict[str, Any] = {"task": task.id, "batch": question.number}
        if speaks_openai := services.models.speaks_openai(choice.provider):
            parameters["prompt"] = prompt.version(PersonaData, asked="")

        def purchase() -> Purchase:
            if speaks_openai:
                person: Any = prompt.shaped(PersonaData)
                people = create_model("People", people=(list[person], ...))
                query = Query(prompt.question(asked=asked), people, instructions=prompt.instructions())
                invented = services.openai(choice.provider).answer(query, model=choice.model)
                return Purchase(invented.usage, invented.value.model_dump()["people"])
            flowise = services.flowise(choice.provider)
            prediction: Priced[list[Any]] = flowise.predict(choice.model, asked, _Entries)
            return Purchase(prediction.usage, value=prediction.value)

        call = PaidCall.of(choice.provider, "personas", choice.model, inputs=[asked], parameters=parameters)
        return services.ledger.buy(call, purchase, buyer=buyer)

    return first_answer(services.models.choices("persona"), ask, task="persona")[1]


def _keep(services: Services, claim: Claim, task: Task, question: Question, answer: Answer) -> int:
    with services.claims.fenced(claim) as connection:
        known = records.known_people(connection, task.id)
        people, problems = sort_out(answer.value, question.positions, known)
        new = records.answered(connection, task.id, question, people, "; ".join(problems)[:1000])
        services.claims.progress(connection, claim)
    if problems:
        log.warning(f"[Task {task.task_id}] some personas are asked for again", extra={"problems": problems[:5]})
    return new


def sort_out(
    answer: Any, positions: Sequence[int], known: Sequence[tuple[str, str]]
) -> tuple[dict[int, PersonaData], list[str]]:
    """The usable people of an answer, by position: valid, and with another name and another story than those who are
    known; and what was wrong with the others."""
    names = {name_key(name, "") for name, _ in known}
    stories = {_story(bio) for _, bio in known}
    people: dict[int, PersonaData] = {}
    problems: list[str] = []
    free = list(positions)
    for entry in answer[:MOST_LISTED] if isinstance(answer, list) else []:
        if not free:
            break
        try:
            person = PersonaData.model_validate(entry)
        except pydantic.ValidationError as error:
            first = error.errors(include_url=False, include_input=False, include_context=False)[0]
            problems.append(f"{'.'.join(map(str, first['loc'])) or 'persona'}: {first['msg']}")
            continue
        name, story = name_key(person.firstname, person.lastname), _story(person.bio)
        if name in names or (len(story) >= STORY and story in stories):
            problems.append(f"{person.full_name} is a duplicate")
            continue
        names.add(name)
        stories.add(story)
        people[free.pop(0)] = person
    if free and not problems:
        problems.append(f"personas asked for: {len(positions)}, received: {len(people)}")
    return people, problems


def _story(bio: str) -> str:
    return " ".join(bio.casefold().split())
