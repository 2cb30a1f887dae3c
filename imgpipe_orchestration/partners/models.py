"""Which provider and model answers each task: what MODELS_FILE says, else what the environment's names say.

A task's models are in order of preference. A task that the file does not name keeps what the environment gives it, and
`use = []` turns it off.
"""

import os
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from imgpipe_orchestration.errors import SettingsError
from imgpipe_orchestration.partners.google_vision import FEATURES
from imgpipe_orchestration.partners.json_text import problem_in
from imgpipe_orchestration.settings import BaseUrl, Settings

TaskName = Literal["describe", "labels", "embed", "moderate", "draw", "edit", "report", "persona", "prompt"]
Dialect = Literal["openai-responses", "openai-chat", "google-vision", "flowise"]
ImageKind = Literal["profile", "header", "logo", "site", "sites", "product", "event"]

_OPENAI: tuple[Dialect, ...] = ("openai-responses", "openai-chat")
_DIALECTS: dict[TaskName, tuple[Dialect, ...]] = {
    "describe": _OPENAI,
    "labels": ("google-vision",),
    "embed": _OPENAI,
    "moderate": ("google-vision", *_OPENAI),
    "draw": _OPENAI,
    "edit": _OPENAI,
    "report": _OPENAI,
    "persona": ("flowise", *_OPENAI),
    "prompt": ("flowise", *_OPENAI),
}
"""Who can be asked for what."""
_PHOTOGRAPH = ("OBJECT_LOCALIZATION", "IMAGE_PROPERTIES", "CROP_HINTS", "TEXT_DETECTION")
"""What Google is asked about an image: only what is read, as each feature is paid for. 5.25 USD per 1,000 images at
list prices: crop hints are free with the colours. Faces are found and colours measured by ourselves, and the describing
model names brands and subjects."""
MODERATION_MODEL = "omni-moderation-latest"
"""OpenAI's, which costs nothing and so comes first."""
_OF_ONE: dict[str, TaskName] = {"canary": "describe", "dimensions": "embed", "features": "labels", "kinds": "labels"}
"""Words that one task has alone."""
_FEWER = {"logo": ("TEXT_DETECTION",), "header": ("OBJECT_LOCALIZATION", "TEXT_DETECTION")}


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Provider(_Strict):
    """A server, and the environment variable that holds its key."""

    dialect: Dialect
    base_url: BaseUrl
    api_key_env: str = ""


_Features = Annotated[list[str], Field(min_length=1)]


class _Kind(_Strict):
    features: _Features


class Canary(_Strict):
    """Models that are asked as well about a share of new images, to compare them."""

    use: list[str]
    share: float = Field(gt=0, le=1)


class Task(_Strict):
    """What answers a task. `dimensions` are of embeddings: an index holds at most 2,000 (pgvector)."""

    use: list[str]
    dimensions: int = Field(1536, ge=1, le=2000)
    features: _Features | None = None
    kinds: dict[ImageKind, _Kind] = Field(default_factory=dict)
    canary: Canary | None = None


class _File(_Strict):
    providers: dict[str, Provider] = Field(default_factory=dict)
    tasks: dict[TaskName, Task] = Field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Choice:
    """One model of one provider; a flow for Flowise, empty for Google Vision."""

    provider: str
    model: str

    def __str__(self) -> str:
        return f"{self.provider}:{self.model}" if self.model else self.provider

    @classmethod
    def of(cls, written: str) -> Self:
        provider, _, model = written.partition(":")
        return cls(provider, model)


class Models:
    """Providers and tasks in force."""

    def __init__(self, settings: Settings) -> None:
        """
        Raises:
            SettingsError: MODELS_FILE cannot be used; says why, and where in it.
        """
        self._settings = settings
        self._file = _read(settings.models_file) if settings.models_file else _File()
        self.providers = _from_environment(settings) | self._file.providers
        self._tasks = _tasks_of(settings) | self._file.tasks
        problems = [f"{where}: {wrong}" for where, wrong in self._problems()]
        if problems:
            raise SettingsError(f"MODELS_FILE: {'; '.join(problems)}")

    def task(self, name: TaskName) -> Task:
        """A task; one that nobody answers has no models."""
        return self._tasks.get(name, Task(use=[]))

    def choices(self, name: TaskName) -> list[Choice]:
        """The models of a task in order of preference; none where it is turned off."""
        return [Choice.of(written) for written in self.task(name).use]

    def canaries(self, name: TaskName) -> list[Choice]:
        """The models that are asked as well, to compare them."""
        canary = self.task(name).canary
        return [Choice.of(written) for written in canary.use] if canary else []

    def key(self, provider: str) -> str:
        """The provider's key, empty if it needs none. One of our own settings is taken with its default."""
        name = self.providers[provider].api_key_env
        return str(getattr(self._settings, name.lower(), "") or os.environ.get(name, ""))

    def speaks_openai(self, provider: str) -> bool:
        return self.providers[provider].dialect in _OPENAI

    def takes_batches(self, provider: str) -> bool:
        return self.providers[provider].dialect == "openai-responses"

    def features(self, kind: str) -> tuple[str, ...]:
        """What Google Vision is asked about an image of a kind ("logo", "header", "product", ...)."""
        task = self.task("labels")
        if kind in task.kinds:
            return tuple(task.kinds[kind].features)
        return tuple(task.features or _FEWER.get(kind, _PHOTOGRAPH))

    def _problems(self) -> Iterator[tuple[str, str]]:
        for name, provider in self._file.providers.items():
            if provider.api_key_env and not self.key(name):
                yield f"providers.{name}", f"its key belongs in {provider.api_key_env}, which is not set"
        for name, task in self._file.tasks.items():
            for word, only in _OF_ONE.items():
                if word in task.model_fields_set and name != only:
                    yield f"tasks.{name}.{word}", f"only {only} takes it"
            for written in [*task.use, *(task.canary.use if task.canary else ())]:
                if wrong := self._wrong(name, Choice.of(written)):
                    yield f"tasks.{name}", f"{written!r} {wrong}"
            for feature in {*(task.features or ()), *(f for kind in task.kinds.values() for f in kind.features)}:
                if feature not in FEATURES:
                    yield f"tasks.{name}", f"{feature!r} is not a Google Vision feature"
        if len({choice.model for choice in self.choices("embed")}) > 1:
            yield "tasks.embed", "only vectors of one model can be compared: name one model, of as many providers"

    def _wrong(self, task: TaskName, choice: Choice) -> str:
        """What is wrong with a model for a task; empty if nothing is."""
        provider = self.providers.get(choice.provider)
        if provider is None:
            return f"names no provider: there are {', '.join(self.providers) or 'none'}"
        if provider.dialect not in _DIALECTS[task]:
            return f"speaks {provider.dialect}, but this task takes {' or '.join(_DIALECTS[task])}"
        if not choice.model and provider.dialect != "google-vision":
            return "names no model: write PROVIDER:MODEL"
        return ""


def _read(path: str) -> _File:
    try:
        return _File.model_validate(tomllib.loads(Path(path).read_text()))
    except ValidationError as error:
        raise SettingsError(f"MODELS_FILE: {problem_in(error)}") from error
    except OSError as error:
        raise SettingsError(f"MODELS_FILE cannot be read: {error}") from error
    except ValueError as error:
        raise SettingsError(f"MODELS_FILE is not valid TOML: {error}") from error


def _from_environment(settings: Settings) -> dict[str, Provider]:
    s = settings
    known: dict[str, tuple[str, Dialect, str, str]] = {
        "openai": (s.openai_api_key, "openai-responses", s.openai_base_url, "OPENAI_API_KEY"),
        "google": (s.google_vision_api_key, "google-vision", s.google_vision_endpoint, "GOOGLE_VISION_API_KEY"),
        "flowise": (s.flowise_base_url, "flowise", s.flowise_base_url, "FLOWISE_API_KEY"),
    }
    return {
        name: Provider(dialect=dialect, base_url=url, api_key_env=key)
        for name, (given, dialect, url, key) in known.items()
        if given
    }


def _tasks_of(settings: Settings) -> dict[TaskName, Task]:
    judges = {"openai": (settings.openai_api_key, MODERATION_MODEL), "google": (settings.google_vision_api_key, "")}
    wanted = [settings.moderation_provider] if settings.moderation_provider else [*judges]
    using = [str(Choice(name, judges[name][1])) for name in wanted if name in judges and judges[name][0]]
    found: dict[TaskName, Task] = {"moderate": Task(use=using[:1])}
    if settings.openai_api_key:
        vision, image = f"openai:{settings.openai_vision_model}", f"openai:{settings.openai_image_model}"
        found |= {"describe": Task(use=[vision]), "report": Task(use=[vision])}
        found |= {"draw": Task(use=[image]), "edit": Task(use=[image])}
        found |= {"embed": Task(use=[f"openai:{settings.openai_embedding_model}"])}
    if settings.google_vision_api_key:
        found |= {"labels": Task(use=["google"])}
    if settings.flowise_base_url:
        found |= {"persona": Task(use=[f"flowise:{settings.flowise_persona_flow_id}"])}
        found |= {"prompt": Task(use=[f"flowise:{settings.flowise_prompt_flow_id}"])}
    return found
