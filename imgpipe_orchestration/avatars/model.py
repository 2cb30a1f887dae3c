"""The avatars' states, steps, people, keys and URLs. Pure functions only."""

import unicodedata
from enum import IntEnum, StrEnum
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from imgpipe_orchestration.settings import Settings
from imgpipe_orchestration.web.values import NoNul, Whole

MOST_PERSONAS = 500
PICTURES = 4
"""Pictures cut from a grid, beside the selfie."""
PUBLIC_KEYS = ("avatars/*/manifest.json", "avatars/*/*/base.png", "avatars/*/*/image_?.png", "avatars/*/*/*_thumb.*")
"""Patterns of the objects that strangers may read. A bought picture is none: it may be held for review, or rejected."""


class TaskStatus(StrEnum):
    """States of `generation_tasks`, as the documents name them."""

    PENDING = "pending"  # accepted; the people are still to be invented
    GENERATING_DATA = "generating-data"  # Flowise is being asked for people
    DATA_GENERATED = "data-generated"  # the people are there; pictures wait to be made
    GENERATING_IMAGES = "generating-images"  # pictures are being made
    COMPLETED = "completed"  # everyone who could be pictured is; error_log names who could not
    FAILED = "failed"  # nobody could be pictured
    CANCELLED = "cancelled"  # stopped on request


ENDED = (TaskStatus.COMPLETED, TaskStatus.FAILED, TaskStatus.CANCELLED)


class PersonaStatus(StrEnum):
    """States of `generation_results`."""

    PENDING = "pending"  # on the way through the steps; `step` is the last one committed
    COMPLETED = "completed"
    FAILED = "failed"  # given up; the reason is in `error`
    CANCELLED = "cancelled"  # the task was stopped first


class Step(IntEnum):
    """The seven steps of a persona, in their order. `step` in `generation_results` is the last one that committed."""

    PROMPT = 1
    BASE = 2
    BASE_UPLOAD = 3
    GRID = 4
    SPLIT = 5
    UPLOAD = 6
    URLS = 7


_Word = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=200)]
_Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=4000)]


class PersonaData(BaseModel):
    """A person in Flowise's answer. Other fields are ignored."""

    model_config = ConfigDict(extra="ignore", coerce_numbers_to_str=True)

    firstname: _Word
    lastname: _Word
    gender: _Word
    age: Annotated[int, Field(ge=0, le=120)]
    nationality: _Word
    occupation: _Word
    bio: _Text
    appearance: _Text

    @property
    def full_name(self) -> str:
        return f"{self.firstname} {self.lastname}"


class ImagePrompt(BaseModel):
    """The words of a picture, from a model that is no flow."""  # part of the sent schema, and so of the ledger's key

    prompt: _Text


class TaskRequest(BaseModel):
    """What a client asks for."""

    model_config = ConfigDict(extra="forbid", str_strip_whitespace=True)

    count: Whole = Field(ge=1, le=MOST_PERSONAS, description="How many people to invent.")
    brief: NoNul = Field(
        "", max_length=4000, description="Who they are: audience, region, trade. Empty: anybody, as varied as possible."
    )
    language: NoNul = Field("English", min_length=1, max_length=60, description="Language of names and texts.")
    style: NoNul = Field("natural smartphone selfie", max_length=500, description="How the pictures should look.")
    seed: Whole = Field(0, ge=0, le=2**31 - 1, description="Another seed gives different people for the same brief.")
    urgent: bool = Field(True, description="false: each picture may take a day, and costs half.")


def name_key(firstname: str, lastname: str) -> str:
    """A name without case, accents and repeated spaces: people with equal keys count as the same person."""
    plain = unicodedata.normalize("NFKD", f"{firstname} {lastname}")
    return " ".join("".join(c for c in plain if not unicodedata.combining(c)).casefold().split())


def task_prefix(task_id: int) -> str:
    """The prefix of all objects of a task; `task_id` is the row's numeric id."""
    return f"avatars/task_{task_id}/"


def persona_prefix(task_id: int, result_id: int) -> str:
    """The prefix of all objects of a person; `result_id` is the row's numeric id."""
    return f"{task_prefix(task_id)}persona_{result_id}/"


def public_url(settings: Settings, key: str) -> str:
    """The URL under which an object is handed out."""
    return f"{settings.s3_public_endpoint}/{settings.s3_bucket_name}/{key}"
