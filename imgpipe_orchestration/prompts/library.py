"""Reads the prompts: Markdown files with TOML between two lines of `+++` before them, whose body is a Jinja template.

A file of the same name in PROMPTS_DIR replaces the package's. It may use the same variables and describe the same
fields of the answer, whose names and types are the product's.
"""

import functools
import hashlib
import json
import tomllib
from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import jinja2
from jinja2 import meta, nodes
from jinja2.sandbox import ImmutableSandboxedEnvironment
from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model

from imgpipe_orchestration.errors import SettingsError
from imgpipe_orchestration.settings import Settings

Shape = TypeVar("Shape", bound=BaseModel)

_PACKAGED = Path(__file__).parent
_FENCE = "+++\n"
_JINJA = ImmutableSandboxedEnvironment(undefined=jinja2.StrictUndefined, keep_trailing_newline=False)


class _Front(BaseModel):
    """What stands before the body; `schema` describes fields of the answer."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    task: str
    version: str
    variables: tuple[str, ...] = ()
    instructions: str = ""
    fields: dict[str, str] = Field(default_factory=dict, alias="schema")


@dataclass(frozen=True)
class Prompt:
    """One task's prompt. Immutable, so what is made of it is made once."""

    front: _Front
    body: str
    brand: str = ""
    _shapes: dict[type[BaseModel], Any] = field(default_factory=dict, compare=False, repr=False)

    def instructions(self) -> str:
        return _template(self.front.instructions).render(brand=self.brand)

    def question(self, **values: Any) -> str:
        """The body with the file's variables filled in. Values are data: a template in them is not run."""
        return _template(self.body).render(brand=self.brand, **values)

    def shaped(self, shape: type[Shape]) -> type[Shape]:
        """The shape of an answer, with the file's descriptions of its fields."""
        if shape not in self._shapes:
            described = {name: copy(info) for name, info in shape.model_fields.items() if name in self.front.fields}
            for name, info in described.items():
                info.description = self.front.fields[name]
            fields: dict[str, Any] = {name: (info.annotation, info) for name, info in described.items()}
            self._shapes[shape] = create_model(shape.__name__, __base__=shape, __doc__=shape.__doc__, **fields)
        found: type[Shape] = self._shapes[shape]
        return found

    def version(self, shape: type[BaseModel], **values: Any) -> str:
        """The file's version and a hash of what is asked with these values and what is to be answered."""
        asked = [self.instructions(), self.question(**values), json.dumps(self.shaped(shape).model_json_schema())]
        return f"{self.front.version}-{hashlib.sha256(json.dumps(asked).encode()).hexdigest()[:12]}"


@functools.cache
def _template(text: str) -> jinja2.Template:
    return _JINJA.from_string(text)


class Library:
    """The prompts in force."""

    def __init__(self, settings: Settings) -> None:
        """
        Raises:
            SettingsError: a file of PROMPTS_DIR cannot be used, or is of no prompt; names it.
        """
        self._brand = settings.brand_context
        self._prompts = {path.stem: read(path, brand=self._brand) for path in sorted(_PACKAGED.glob("*.md"))}
        if not settings.prompts_dir:
            return
        folder = Path(settings.prompts_dir)
        if not folder.is_dir():
            raise SettingsError(f"PROMPTS_DIR: {folder} is not a folder")
        for path in sorted(folder.glob("*.md")):
            self._prompts[path.stem] = self.in_place_of(path.stem, path)

    def __getitem__(self, name: str) -> Prompt:
        return self._prompts[name]

    def in_place_of(self, name: str, path: Path) -> Prompt:
        """The prompt in a file, to be used in another's place.

        Raises:
            SettingsError: it cannot be used, or needs more than the other one.
        """
        ours = self._prompts.get(name)
        if ours is None:
            raise _wrong(path, f"there is no prompt {name!r}: {', '.join(self._prompts)}")
        theirs = read(path, brand=self._brand)
        if theirs.front.task != ours.front.task:
            raise _wrong(path, f"task must be {ours.front.task!r}")
        if more := sorted(set(theirs.front.variables) - set(ours.front.variables)):
            raise _wrong(path, f"no variable {more[0]!r}: there are {', '.join(ours.front.variables)}")
        if more := sorted(set(theirs.front.fields) - set(ours.front.fields)):
            raise _wrong(path, f"the answer has no field {more[0]!r}: it has {', '.join(ours.front.fields)}")
        return theirs


def read(path: Path, *, brand: str) -> Prompt:
    """
    Raises:
        SettingsError: the file is not a prompt; says why.
    """
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise _wrong(path, str(error)) from error
    before, _, rest = text.partition(_FENCE)
    front_text, fence, body = rest.partition(f"\n{_FENCE}")
    if before or not fence:
        raise _wrong(path, "begins with TOML between two lines of +++")
    try:
        front = _Front.model_validate(tomllib.loads(front_text))
    except ValidationError as error:
        fault = error.errors(include_url=False, include_input=False)[0]
        raise _wrong(path, f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}") from error
    except ValueError as error:
        raise _wrong(path, f"has no valid TOML before the body: {error}") from error
    _check(path, front.instructions, (), "and the instructions have only `brand`")
    _check(path, body, front.variables, "which is not in `variables`")
    return Prompt(front, body.strip(), brand)


def _check(path: Path, template: str, variables: Sequence[str], unknown: str) -> None:
    """
    Raises:
        SettingsError: the template is broken, or uses a variable, filter, test or other template that it does not have.
    """
    try:
        tree = _JINJA.parse(template)
        more = sorted(meta.find_undeclared_variables(tree) - {*variables, "brand"})
    except jinja2.TemplateSyntaxError as error:  # also of filters and tests, but those in branches
        raise _wrong(path, f"line {error.lineno} of the template: {error.message}") from error
    if more:
        raise _wrong(path, f"uses {more[0]!r}, {unknown}")
    for node in tree.find_all((nodes.Filter, nodes.Test)):
        if node.name not in (_JINJA.filters if isinstance(node, nodes.Filter) else _JINJA.tests):
            raise _wrong(path, f"line {node.lineno} of the template: Jinja has no filter or test {node.name!r}")
    if any(tree.find_all((nodes.Include, nodes.Import, nodes.FromImport, nodes.Extends))):
        raise _wrong(path, "a template cannot use another one")


def _wrong(path: Path, problem: str) -> SettingsError:
    return SettingsError(f"PROMPTS_DIR: {path.name}: {problem}")
