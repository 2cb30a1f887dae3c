"""Flowise's prediction endpoint with the two flows of the avatars: persona data and image prompts."""

import hashlib
import json
from typing import Annotated, Any

from fastapi import APIRouter, Body

from imgpipe_orchestration.devstack.standins import FLOWISE
from imgpipe_orchestration.devstack.standins.fill import Facts

router = APIRouter(prefix=f"{FLOWISE}/api/v1/prediction")
Question = Annotated[str, Body(embed=True)]

CAMERA_SHY = "camera-shy"
"""A word of the brief: the first person of the question with seed 1 is, and OpenAI's stand-in draws nobody who is."""

_FIRST = {
    "female": "Ada Beatriz Chiara Dunja Elif Freya Grace Hana Ines Jana Karima Leila Maja Nora Olga Priya Rosa Sofia",
    "male": "Adam Bruno Carl Dario Emil Farid Goran Hugo Ivan Jonas Kofi Luca Marek Nils Omar Pavel Rafael Stefan",
}
_LAST = (
    "Andersen Bianchi Cohen Diaz Eriksen Fischer Garcia Haddad Ivanova Jensen Kowalski Larsen Moreau Novak Okafor"
    " Petrov Quint Rossi Silva Tanaka Ueda Vargas Weber Xu Yilmaz Zeman"
)
_JOBS = ("nurse", "carpenter", "teacher", "engineer", "baker", "librarian", "pilot", "designer", "chemist", "farmer")
_NATIONS = ("Denmark", "Italy", "Poland", "Brazil", "Japan", "Ghana", "Lebanon", "Spain", "Turkey", "Germany")
_LOOKS = ("black hair", "brown hair, glasses", "blond hair, freckles", "red hair, a scarf", "grey hair, a warm smile")


@router.post("/image-prompt")
def image_prompt(question: Question) -> dict[str, Any]:
    return {"text": _prompt(_wanted(question)), "question": question, "standin": True}


@router.post("/persona-data")
def persona_data(question: Question) -> dict[str, Any]:
    seed = hashlib.sha256(question.encode()).digest()
    personas = _personas(_wanted(question), Facts(seed))
    told = {"question": question, "standin": True}
    # Real flows answer in either form, depending on their last node: both are exercised.
    if seed[0] % 2:
        return {"json": personas, **told}
    text = f"Here are the personas:\n```json\n{json.dumps(personas, ensure_ascii=False, indent=1)}\n```\n"
    return {"text": text, **told}


def _wanted(question: str) -> dict[str, Any]:
    """The JSON in the question; what follows it (a remark about a previous answer) is left aside."""
    try:
        found = json.JSONDecoder().raw_decode(question.lstrip())[0]
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _personas(wanted: dict[str, Any], facts: Facts) -> list[dict[str, Any]]:
    taken = {str(excluded).lower() for excluded in wanted.get("exclude") or []}
    personas: list[dict[str, Any]] = []
    for place in map(str, range(20_000)):
        if len(personas) == int(wanted.get("count") or 1):
            break
        gender = facts.pick(("female", "male"), place, "gender")
        first, last = facts.pick(_FIRST[gender].split(), place, "first"), facts.pick(_LAST.split(), place, "last")
        if f"{first} {last}".lower() in taken:
            continue
        taken.add(f"{first} {last}".lower())
        job, nation = facts.pick(_JOBS, place, "job"), facts.pick(_NATIONS, place, "nation")
        age = 22 + int(facts.number(place, "age") * 45)
        is_shy = CAMERA_SHY in str(wanted.get("brief")) and wanted.get("seed") == 1 and not personas
        personas.append(
            {
                "firstname": first,
                "lastname": last,
                "gender": gender,
                "age": age,
                "nationality": nation,
                "occupation": job,
                "bio": f"{first} is a {job} of {age} from {nation}. (Written by a stand-in.)",
                "appearance": facts.pick(_LOOKS, place, "looks") + (f", {CAMERA_SHY}" if is_shy else ""),
            }
        )
    return personas


def _prompt(persona: dict[str, Any]) -> str:
    name = f"{persona.get('firstname', '')} {persona.get('lastname', '')}".strip() or "a person"
    told = [
        str(persona[name]) for name in ("gender", "age", "occupation", "nationality", "appearance") if name in persona
    ]
    return f"Selfie portrait of {', '.join((name, *told))}, natural light (stand-in prompt)"
