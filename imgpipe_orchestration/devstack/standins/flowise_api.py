"""Flowise's prediction endpoint with the two flows of the avatars: persona data and image prompts."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from imgpipe_orchestration.devstack.standins.fill import Facts
from imgpipe_orchestration.devstack.standins.refusal import Refusal

PERSONA_FLOW = "persona-data"
PROMPT_FLOW = "image-prompt"

CAMERA_SHY = "camera-shy"
"""A word of the brief: the first person of the question with seed 1 is, and OpenAI's stand-in draws nobody who is."""

_FIRST = {
    "female": (
        "Ada", "Beatriz", "Chiara", "Dunja", "Elif", "Freya", "Grace", "Hana", "Ines", "Jana",
        "Karima", "Leila", "Maja", "Nora", "Olga", "Priya", "Rosa", "Sofia", "Tove", "Yuki",
    ),
    "male": (
        "Adam", "Bruno", "Carl", "Dario", "Emil", "Farid", "Goran", "Hugo", "Ivan", "Jonas",
        "Kofi", "Luca", "Marek", "Nils", "Omar", "Pavel", "Rafael", "Stefan", "Tomas", "Zoltan",
    ),
}  # fmt: skip
_LAST = (
    "Andersen", "Bianchi", "Cohen", "Diaz", "Eriksen", "Fischer", "Garcia", "Haddad", "Ivanova", "Jensen",
    "Kowalski", "Larsen", "Moreau", "Novak", "Okafor", "Petrov", "Quint", "Rossi", "Silva", "Tanaka",
    "Ueda", "Vargas", "Weber", "Xu", "Yilmaz", "Zeman",
)  # fmt: skip
_JOBS = ("nurse", "carpenter", "teacher", "engineer", "baker", "librarian", "pilot", "designer", "chemist", "farmer")
_NATIONS = ("Denmark", "Italy", "Poland", "Brazil", "Japan", "Ghana", "Lebanon", "Spain", "Turkey", "Germany")
_HAIR = ("black hair", "brown hair", "blond hair", "red hair", "grey hair")
_EXTRAS = ("glasses", "a warm smile", "a calm look", "freckles", "a scarf")


def error(status: int, code: str, message: str) -> dict[str, Any]:
    """The shape of Flowise's errors."""
    return {"statusCode": status, "success": False, "message": f"{code}: {message}", "stack": {}, "standin": True}


async def predict(request: Request) -> Response:
    """POST /api/v1/prediction/{flow}."""
    flow = request.path_params["flow"]
    try:
        question = (await request.json())["question"]
    except (ValueError, KeyError, TypeError):
        raise Refusal(400, error(400, "bad_request", "Question is missing")) from None
    if flow not in (PERSONA_FLOW, PROMPT_FLOW):
        raise Refusal(404, error(404, "not_found", f"Chatflow {flow} not found"))
    seed = hashlib.sha256(str(question).encode()).digest()
    meta = {"question": str(question), "chatId": seed.hex()[:16], "chatMessageId": seed.hex()[16:32], "standin": True}
    wanted = _question(question)
    if flow == PROMPT_FLOW:
        return JSONResponse({"text": _prompt(wanted, str(question)), **meta})
    personas = _personas(wanted, Facts(seed))
    # Real flows answer in either form, depending on their last node: both are exercised.
    if seed[0] % 2:
        return JSONResponse({"json": personas, **meta})
    text = f"Here are the personas:\n```json\n{json.dumps(personas, ensure_ascii=False, indent=1)}\n```\n"
    return JSONResponse({"text": text, **meta})


def _question(question: Any) -> dict[str, Any]:
    """The JSON in the question; what follows it (a remark about a previous answer) is left aside."""
    if isinstance(question, dict):
        return question
    try:
        found = json.JSONDecoder().raw_decode(str(question).lstrip())[0]
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _personas(wanted: dict[str, Any], facts: Facts) -> list[dict[str, Any]]:
    taken = {_name(excluded) for excluded in wanted.get("exclude") or []}
    personas: list[dict[str, Any]] = []
    number = 0
    while len(personas) < int(wanted.get("count") or 1) and number < 20_000:
        number += 1
        place = str(number)
        gender = facts.pick(("female", "male"), place, "gender")
        first, last = facts.pick(_FIRST[gender], place, "first"), facts.pick(_LAST, place, "last")
        if f"{first} {last}".lower() in taken:
            continue
        taken.add(f"{first} {last}".lower())
        job, nation = facts.pick(_JOBS, place, "job"), facts.pick(_NATIONS, place, "nation")
        age = 22 + int(facts.number(place, "age") * 45)
        is_shy = CAMERA_SHY in str(wanted.get("brief")) and wanted.get("seed") == 1 and not personas
        shy = f", {CAMERA_SHY}" if is_shy else ""
        personas.append(
            {
                "firstname": first,
                "lastname": last,
                "gender": gender,
                "age": age,
                "nationality": nation,
                "occupation": job,
                "bio": f"{first} is a {job} of {age} from {nation}. (Written by a stand-in.)",
                "appearance": f"{facts.pick(_HAIR, place, 'hair')}, {facts.pick(_EXTRAS, place, 'extra')}{shy}",
            }
        )
    return personas


def _name(excluded: Any) -> str:
    if isinstance(excluded, dict):
        return f"{excluded.get('firstname', '')} {excluded.get('lastname', '')}".lower()
    return str(excluded).lower()


def _prompt(persona: dict[str, Any], question: str) -> str:
    if not persona:
        return f"A portrait of a person (stand-in prompt {hashlib.sha256(question.encode()).hexdigest()[:8]})"
    name = f"{persona.get('firstname', '')} {persona.get('lastname', '')}".strip() or "a person"
    return (
        f"Selfie portrait of {name}, {persona.get('gender', 'person')}, {persona.get('age', 'adult')} years, "
        f"{persona.get('occupation', '')} from {persona.get('nationality', '')}, {persona.get('appearance', '')}, "
        "natural light (stand-in prompt)"
    )
